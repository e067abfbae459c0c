"""Faults of texts, checkpoints and generation."""

from __future__ import annotations

from tests.faults.fault import Fault

FAULTS = (
    Fault(
        what="new text is decoded without what stands before it",
        file="text/decoding.py",
        line="text = tokenizer.decode([*said, *held])",
        becomes="text = before + tokenizer.decode(held)",
        tests="tests/text/test_decoding.py",
    ),
    Fault(
        what="ids that the tokenizer lacks are drawn",
        file="model/greedy.py",
        line='logits_BV[:, self._columns] = float("-inf")',
        becomes="pass",
        tests="tests/serving/test_ending.py",
    ),
    Fault(
        what="the end tokens of config.json come before those of generation_config.json",
        file="serving/ending.py",
        line='("generation_config.json", "config.json")',
        becomes='("config.json", "generation_config.json")',
        tests="tests/serving/test_ending.py",
    ),
    Fault(
        what="any number of bad lines is skipped",
        file="text/bad_lines.py",
        line="if self.bad > MOST_SHARE * self.read:",
        becomes="if False:",
        tests="tests/text/test_documents.py",
    ),
    Fault(
        what="a document of JSON lines is named by its count, so splits change",
        file="text/formats.py",
        line="for number, line in enumerate(lines_of(path), start=1):",
        becomes="for number, line in enumerate(lines_of(path), start=0):",
        tests="tests/text/test_known_digests.py",
    ),
    Fault(
        what="a head of a tied model's own is dropped",
        file="shape/hugging_face/held.py",
        line="elif not same_values(found[EMBEDDING], found[HEAD]):",
        becomes="elif False:",
        tests="tests/model/test_foreign.py::test_a_tied_model_with_another_head_uses_it_and_is_untied",
    ),
    Fault(
        what="the index does not decide which file holds a tensor",
        file="shape/hugging_face/files.py",
        line="[entry for entry in held if entry.file.name == indexed]",
        becomes="held",
        tests="tests/model/test_foreign.py::test_the_index_decides_which_file_holds_a_tensor",
    ),
    Fault(
        what="the last layers are skipped, whichever are named",
        file="model/turned.py",
        line="kept = [model.blocks[layer] for layer in setting.kept(model.shape)]",
        becomes="kept = [*model.blocks][: len(setting.kept(model.shape))]",
        tests="tests/model/test_turned.py::test_layers_of_their_own_numbers_are_those_of_a_model_built_so",
    ),
    Fault(
        what="rows that begin alike share what was read with another number of experts",
        file="model/decoder.py",
        line="alike = rows and counts[rows[0]] == counts[row]",
        becomes="alike = rows",
        tests="tests/model/test_turned.py::test_rows_begin_at_their_own_k_even_where_they_begin_alike",
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
        tests="tests/verbs/test_evaluate_settings.py::test_tasks_are_scored_and_compared_at_each_setting",
    ),
    Fault(
        what="lists with an entry for each layer keep those of layers that went",
        file="shape/config.py",
        line="[value[number] for number in layers] if",
        becomes="value[: len(layers)] if",
        tests="tests/pruning/test_layers.py",
    ),
    Fault(
        what="a selection of originals that were changed is believed",
        file="text/selected.py",
        line="if reading.digest != self.record.text_digest:",
        becomes="if False:",
        tests="tests/text/test_selected.py",
    ),
    Fault(
        what="a selection's manifest decides over held-out text",
        file="text/selected.py",
        line='if now != (split if kept or split == "train" else None):',
        becomes="if False:",
        tests="tests/text/test_selected.py",
    ),
)
