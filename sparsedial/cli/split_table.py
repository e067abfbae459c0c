"""The tables of `prune --split-experts` and `--join-experts`: what each number of experts costs, and what came back."""

from __future__ import annotations

from sparsedial.cli.prune_table import recovery_rows, second_rows
from sparsedial.cli.rows import Rows, aligned, lines
from sparsedial.records.prune import CheckpointCosts
from sparsedial.records.quantities import Interval
from sparsedial.records.split import JoinedExperts, SplitExperts, SplitPoint
from sparsedial.showing.numbers import NONE, interval_words, rate_words
from sparsedial.showing.settings_words import short_name
from sparsedial.units import human_bytes, human_count, human_percent

ADDED = ("added loss, nats per token", "by a random division", "as many removed")
LEAST = 0.0005  # nats per token: less is shown as none
NOTE = "timed in turns with the settings; ranges hold 80 % of the calls"


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
            *(_of_text(done, second.source, "on the second text") if second else []),
            *_unmeasured(done),
            ("dense, tokens a second", f"{_speeds(done.before)}, {NOTE}"),
            *recovery_rows(done),
            *(("warning", words) for words in done.warnings),
        ]
    )


def _unmeasured(done: SplitExperts) -> Rows:
    """Why some rivals have a dash."""
    reasons = dict.fromkeys(point.at_random_reason for point in done.dial if point.at_random_reason)
    return [(NONE, reason) for reason in reasons]


def _of_text(done: SplitExperts, source: str, head: str) -> Rows:
    """A line for each setting, by the loss on one text."""
    heads = ("neurons", "a token's parameters", *ADDED, "tokens a second")
    table = aligned([heads, *(_cells(point, source) for point in done.dial)])
    return [(head, table[0]), *zip((short_name(point.setting) for point in done.dial), table[1:], strict=True)]


def _cells(point: SplitPoint, source: str) -> list[str]:
    added = [_added(each, source) for each in (point.loss_increase, point.at_random, point.removed)]
    parameters = human_count(point.setting.active_parameters)
    return [human_percent(point.neurons_share, 3), parameters, *added, _speeds(point.costs)]


def _speeds(costs: CheckpointCosts) -> str:
    """How fast one sequence is written, and a prompt read."""
    written, read = rate_words(costs.decode_tokens_per_second), rate_words(costs.prefill_tokens_per_second)
    return f"{written} written, {read} read"


def _added(grown: dict[str, Interval] | None, source: str) -> str:
    """None where it is less than the digits that are shown: with all experts on only rounding differs."""
    if grown is None:
        return NONE
    found = grown[source]
    ends = (found.mean if end is None else end for end in (found.low, found.mean, found.high))
    return "0" if max(map(abs, ends)) < LEAST else interval_words(found, "+.3f")


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
