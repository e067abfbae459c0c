"""Faults of losses, tasks and probes."""

from __future__ import annotations

from tests.faults.fault import Fault

FAULTS = (
    Fault(
        what="bits per byte without ln 2",
        file="evaluation/loss.py",
        line="total / math.log(2) / scored_bytes",
        becomes="total / scored_bytes",
        tests="tests/evaluation/test_loss.py",
    ),
    Fault(
        what="a sliding window scores all of its tokens",
        file="text/windows.py",
        line="Windows(ids[1:], stride)",
        becomes="Windows(ids[1:], context)",
        tests="tests/text/test_windows.py",
    ),
    Fault(
        what="an interval of a loss is over windows where there are documents",
        file="evaluation/domains.py",
        line="if len(units.nats) < 2:",
        becomes="if True:",
        tests="tests/evaluation/test_domains.py",
    ),
    Fault(
        what="an item is found across the end of a document",
        file="text/contamination.py",
        line="held.append(BREAK)",
        becomes="pass",
        tests="tests/text/test_contamination.py",
    ),
    Fault(
        what="an item that shares 12 words with a text is touched",
        file="text/contamination.py",
        line="RUN_WORDS = 13",
        becomes="RUN_WORDS = 12",
        tests="tests/text/test_contamination.py",
    ),
    Fault(
        what="probe text leaked into test",
        file="text/prepare.py",
        line='Mixing(probes, shards["train"], manifest)',
        becomes='Mixing(probes, shards["test"], manifest)',
        tests="tests/text/test_probes.py::test_held_out_text_is_the_same_with_and_without_probes",
    ),
    Fault(
        what="pairs that are kept out stand in the training text",
        file="text/probes.py",
        line="if pair not in kept_out:",
        becomes="if True:",
        tests="tests/text/test_probes.py::test_pairs_that_are_kept_out_stand_nowhere_in_the_training_text",
    ),
    Fault(
        what="an answer's bits per byte without ln 2",
        file="evaluation/probes.py",
        line="-one.log_likelihood / math.log(2) / len",
        becomes="-one.log_likelihood / len",
        tests="tests/evaluation/test_probes.py::test_a_uniform_model_over_256_bytes_answers_at_8_bits_per_byte",
    ),
    Fault(
        what="the last tokens of a text are not scored",
        file="text/windows.py",
        line="rest = scored - (context + (whole - 1) * stride if whole else 0)",
        becomes="rest = 0 if whole else scored",
        tests="tests/text/test_windows.py",
    ),
    Fault(
        what="choices are scored with their question counted in",
        file="evaluation/harness.py",
        line="return context, continuation",
        becomes="return context[:1], [*context[1:], *continuation]",
        tests="tests/evaluation/test_judge.py",
    ),
    Fault(
        what="an answer's bits are per word, not per byte",
        file="evaluation/gold.py",
        line="/ len(text.encode())",
        becomes="/ len(text.split())",
        tests="tests/evaluation/test_judge.py",
    ),
    Fault(
        what="bits per byte of an answer without ln 2",
        file="evaluation/gold.py",
        line="-nats / math.log(2)",
        becomes="-nats",
        tests="tests/evaluation/test_judge.py",
    ),
    Fault(
        what="an interval over questions where one passage has several",
        file="evaluation/judge.py",
        line='sample["doc"][fields[0]] if fields else',
        becomes="",
        tests="tests/evaluation/test_judge.py::test_questions_on_one_passage_are_one_observation",
    ),
    Fault(
        what="paired differences count each question of one passage",
        file="evaluation/compare.py",
        line="np.unique(groups, return_inverse=True)[1]",
        becomes="np.arange(len(groups))",
        tests="tests/evaluation/test_compare.py",
    ),
    Fault(
        what="a resumed evaluation states a speed",
        file="evaluation/judge.py",
        line="resumed=model.kept.reused > reused",
        becomes="resumed=False",
        tests="tests/verbs/test_evaluate.py",
    ),
    Fault(
        what="pairs that are kept out are scored as seen",
        file="text/probes.py",
        line='*asked("seen", practised)',
        becomes='*asked("seen", kept_out)',
        tests="tests/text/test_probes.py::test_pairs_that_are_kept_out_stand_nowhere_in_the_training_text",
    ),
    Fault(
        what="a reading item whose passage does not fit is cut",
        file="evaluation/judge.py",
        line='.get("whole_items", False)',
        becomes='.get("whole", False)',
        tests="tests/evaluation/test_judge.py",
    ),
    Fault(
        what="guessing is tested by another metric than the one that is shown",
        file="evaluation/judge.py",
        line="right = [sample[metric] for",
        becomes='right = [sample["acc"] for',
        tests="tests/evaluation/test_judge.py::test_guessing_is_tested_by_the_metric_that_stands_for_the_task",
    ),
)
