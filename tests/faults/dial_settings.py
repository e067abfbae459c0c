"""Faults of the settings of a dial that a test must find."""

from __future__ import annotations

from tests.faults.planted import Fault

TURNED, SETTINGS = "tests/model/test_turned.py", "tests/verbs/test_evaluate_settings.py"

FAULTS = (
    Fault(
        what="the last layers are skipped, whichever are named",
        file="model/turned.py",
        line="kept = [model.blocks[layer] for layer in setting.kept(model.shape)]",
        becomes="kept = [*model.blocks][: len(setting.kept(model.shape))]",
        tests=f"{TURNED}::test_layers_of_their_own_numbers_are_those_of_a_model_built_so",
    ),
    Fault(
        what="rows that begin alike share what was read with another number of experts",
        file="model/decoder.py",
        line="alike = rows and counts[rows[0]] == counts[row]",
        becomes="alike = rows",
        tests=f"{TURNED}::test_rows_begin_at_their_own_k_even_where_they_begin_alike",
    ),
    Fault(
        what="dial.json changes the digest of its checkpoint",
        file="model/digests.py",
        line="BESIDE = (SUMMARY, PRUNE_FILE, DIAL_FILE)",
        becomes="BESIDE = (SUMMARY, PRUNE_FILE)",
        tests="tests/verbs/test_dial_measured.py::test_each_setting_is_measured_beside_the_default",
    ),
    Fault(
        what="an added loss is within its limit on average, not surely",
        file="serving/budget.py",
        line="(grown.mean if grown.high is None else grown.high)",
        becomes="grown.mean",
        tests="tests/serving/test_budget.py",
    ),
    Fault(
        what="answers to tasks that are kept are those of another setting",
        file="verbs/evaluated.py",
        line='f"{name.digest} {setting.name}"',
        becomes="name.digest",
        tests=f"{SETTINGS}::test_tasks_are_scored_and_compared_at_each_setting",
    ),
)
