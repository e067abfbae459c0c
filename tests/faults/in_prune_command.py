"""Faults of what `prune` does around its methods: splits, recoveries, measurements, refusals, the picture."""

from __future__ import annotations

from tests.faults.fault import Fault

FAULTS = (
    Fault(
        what="a measurement layer by layer begins anew each time",
        file="verbs/pruned_costs.py",
        line="nats_in_turn(model, work.scored, shelf.under(name))",
        becomes="nats_in_turn(model, work.scored, Shelf())",
        tests="tests/verbs/test_prune_resume.py::test_layer_by_layer_the_measurement_goes_on_from_the_last_layer_too",
    ),
    Fault(
        what="scores of the whole model are gathered for layers that are scored behind cut ones",
        file="pruning/choosing_experts.py",
        line="if all(ask.in_turn for ask in asks):",
        becomes="if False:",
        tests="tests/pruning/test_sequential.py::test_nothing_of_the_whole_model_is_gathered_for_it",
    ),
    Fault(
        what="the file that is scored as the second text is calibrated on all the same",
        file="pruning/second.py",
        line="return held_out.rest, SecondText(",
        becomes="return corpus, SecondText(",
        tests="tests/verbs/test_prune_second.py::test_a_file_of_another_kind_is_left_out_of_the_calibration_and_scored",
    ),
    Fault(
        what="a recovery learns the file that is scored as the second text",
        file="verbs/pruned_texts.py",
        line="text = prepare(first, tokenizer",
        becomes="text = prepare(settings.calibrate, tokenizer",
        tests="tests/verbs/test_prune_second.py::test_a_recovery_does_not_learn_it",
    ),
    Fault(
        what="a copy of the file that is left out of a text stays in it",
        file="text/held_out_file.py",
        line="if other == number or filecmp",
        becomes="if other == number and filecmp",
        tests="tests/text/test_held_out_file.py",
    ),
    Fault(
        what="of a shorter file fewer tokens are looked at, so that it seems to differ more",
        file="text/held_out_file.py",
        line="[sample.ids[:alike] for sample in samples]",
        becomes="[sample.ids for sample in samples]",
        tests="tests/text/test_held_out_file.py",
    ),
    Fault(
        what="a split checkpoint is taught by itself",
        file="pruning/recovery.py",
        line="teacher=self.original if",
        becomes='teacher=CheckpointName(path=str(self.cut), digest="", family="") if',
        tests="tests/verbs/test_split_recover.py::test_it_wins_back_what_fewer_experts_lost",
    ),
    Fault(
        what="a split checkpoint is written without its recovery",
        file="verbs/split_experts.py",
        line="if recovery is None:",
        becomes="if True:",
        tests="tests/verbs/test_split_recover.py::test_it_wins_back_what_fewer_experts_lost",
    ),
    Fault(
        what="rivals of a split are measured at the default, where it is the dense model",
        file="pruning/split_sizes.py",
        line="return self.top_k if self.top_k < self.experts else self.settings[-1]",
        becomes="return self.top_k",
        tests="tests/verbs/test_split_experts.py::test_where_all_experts_are_on_rivals_are_measured_at_the_lowest_number",
    ),
    Fault(
        what="plain weights that are said to be quantised are read",
        file="model/reading.py",
        line="if method is not None:",
        becomes="if method is not None and not read_config(config):",
        tests="tests/verbs/test_quantised.py",
    ),
    Fault(
        what="a fifth of the windows scores, however long the text is",
        file="pruning/windows.py",
        line="most = count - 1 if asked == count else count // SCORED_SHARE",
        becomes="most = count // SCORED_SHARE",
        tests="tests/pruning/test_windows.py",
    ),
    Fault(
        what="the line of a comparison's front lies beside its rings",
        file="showing/compare_figure.py",
        line="ConnectionPatch(one[:2], other[:2], one[2], other[2], **look)",
        becomes="ConnectionPatch(one[:2], other[:2], axes.transData, axes.transData, **look)",
        tests="tests/verbs/test_prune_compare.py::test_the_dashed_line_of_the_picture_goes_from_ring_to_ring",
    ),
    Fault(
        what="an error about a setting does not name it",
        file="errors.py",
        line="raise UserError(*error.marked, field=field) from error",
        becomes="raise",
        tests="tests/verbs/test_dial_measured.py",
    ),
)
