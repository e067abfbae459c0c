"""The tables of `prune --split-experts` and `--join-experts`: what each number of experts costs, and what came back."""

from __future__ import annotations

from sparsedial.cli.prune_table import recovery_rows, second_rows
from sparsedial.cli.rows import Rows, headed, lines
from sparsedial.records.prune import CheckpointCosts
from sparsedial.records.quantities import Interval
from sparsedial.records.split import JoinedExperts, SplitExperts, SplitPoint
from sparsedial.showing.numbers import NONE, grown_words, rate_words
from sparsedial.showing.settings_words import short_name
from sparsedial.units import human_bytes, human_count, human_factor, human_percent, signed

ADDED = ("added loss,\nnats per token", "random\ndivision", "as many\nremoved")
HEADS = ("neurons", "active", *ADDED, "written,\ntokens/s", "read,\ntokens/s")
NOTE = "speeds were timed in turns; ranges hold 80 % of the calls"


def split_table(done: SplitExperts) -> str:
    """How the neurons were divided, where that was written, and a line for each setting."""
    shared = f" beside a shared part as wide as {done.always}" if done.always else ""
    widths = sorted(set(done.d_expert))
    each = f"{widths[0]} neurons" if len(widths) == 1 else f"{widths[0]} to {widths[-1]} neurons"
    second = done.second_domain
    return lines(
        [
            ("divided", f"{done.target.reached} experts of {each} in each of {len(done.d_expert)} layers{shared}"),
            ("written", f"{done.out.path}, read by {' and '.join(done.out.read_by)}"),
            ("calibrated on", f"{human_count(done.calibration.tokens)} tokens of {done.calibration.source}"),
            *second_rows(second),
            *_of_text(done, done.calibration.source, "setting"),
            *(_of_text(done, second.source, "second text") if second else []),
            *_unmeasured(done),
            ("note", NOTE),
            *recovery_rows(done),
            *(("warning", words) for words in done.warnings),
        ]
    )


def _unmeasured(done: SplitExperts) -> Rows:
    """Why some rivals have a dash."""
    reasons = dict.fromkeys(point.at_random_reason for point in done.dial if point.at_random_reason)
    return [("not measured", reason) for reason in reasons]


def _of_text(done: SplitExperts, source: str, head: str) -> Rows:
    """The dense checkpoint and each setting, by the loss on one text."""
    dense = ["", human_count(done.before.active_parameters), *[""] * len(ADDED), *_speeds(done.before)]
    return headed(
        head, HEADS, [("dense", dense), *((short_name(each.setting), _cells(each, source)) for each in done.dial)]
    )


def _cells(point: SplitPoint, source: str) -> list[str]:
    rivals = [_alone(each, source) for each in (point.at_random, point.removed)]
    share, active = human_percent(point.neurons_share, 3), human_count(point.setting.active_parameters)
    return [share, active, grown_words(point.loss_increase[source]), *rivals, *_speeds(point.costs)]


def _speeds(costs: CheckpointCosts) -> list[str]:
    """How fast one sequence is written, and a prompt read; of the latter the median alone."""
    read = costs.prefill_tokens_per_second
    return [rate_words(costs.decode_tokens_per_second), NONE if read is None else human_factor(read.median)]


def _alone(grown: dict[str, Interval] | None, source: str) -> str:
    """Of a rival: its mean, so that a line is no longer than a terminal's; the answer has its interval."""
    return NONE if grown is None else signed(grown[source].mean)


def joined_table(done: JoinedExperts) -> str:
    """Where the dense checkpoint was written, and whether its weights are those that were split."""
    same = "every bit" if done.same_weights else "not those: the split checkpoint was changed since"
    return lines(
        [
            ("joined", f"{done.checkpoint.path}, which was {done.original.path}"),
            ("written", f"{done.out.path}, read by {' and '.join(done.out.read_by)}"),
            ("weights", f"{human_bytes(done.weight_bytes)}; as they were: {same}"),
        ]
    )
