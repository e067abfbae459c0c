"""The tables of `prune --split-experts` and `--join-experts`: what each number of experts costs, and what came back."""

from __future__ import annotations

from sparsedial.cli.prune_table import recovery_rows
from sparsedial.cli.rows import Rows, aligned, lines
from sparsedial.records.quantities import Interval
from sparsedial.records.split import JoinedExperts, SplitExperts, SplitPoint
from sparsedial.showing.numbers import NONE, interval_words, rate_words
from sparsedial.showing.settings_words import short_name
from sparsedial.units import human_bytes, human_count, human_percent

ADDED = ("added loss, nats per token", "by a random division", "as many removed")


def split_table(done: SplitExperts) -> str:
    """How the neurons were divided, where that was written, and a line for each setting."""
    shared = f" beside a shared part as wide as {done.always}" if done.always else ""
    widths = sorted(set(done.d_expert))
    each = f"{widths[0]} neurons" if len(widths) == 1 else f"{widths[0]} to {widths[-1]} neurons"
    second = [("second text", done.second_domain.source)] if done.second_domain else []
    return lines(
        [
            ("divided", f"{done.target.reached} experts of {each} in each of {len(done.d_expert)} layers{shared}"),
            ("written", f"{done.out.path}, read by {' and '.join(done.out.read_by)}"),
            ("calibrated on", f"{human_count(done.calibration.tokens)} tokens of {done.calibration.source}"),
            *second,
            *_of_text(done, done.calibration.source, "setting"),
            *(row for text in second for row in _of_text(done, text[1], "on the second text")),
            ("", f"the dense checkpoint writes {rate_words(done.before.decode_tokens_per_second)} tokens a second"),
            *recovery_rows(done),
            *(("warning", words) for words in done.warnings),
        ]
    )


def _of_text(done: SplitExperts, source: str, head: str) -> Rows:
    """A line for each setting, by the loss on one text."""
    heads = ("neurons", "a token's parameters", *ADDED, "written, tokens a second")
    table = aligned([heads, *(_cells(point, source) for point in done.dial)])
    return [(head, table[0]), *zip((short_name(point.setting) for point in done.dial), table[1:], strict=True)]


def _cells(point: SplitPoint, source: str) -> list[str]:
    added = [_added(each, source) for each in (point.loss_increase, point.at_random, point.removed)]
    speed = rate_words(point.costs.decode_tokens_per_second)
    parameters = human_count(point.setting.active_parameters)
    return [human_percent(point.neurons_share, 3), parameters, *added, speed]


def _added(grown: dict[str, Interval] | None, source: str) -> str:
    return NONE if grown is None else interval_words(grown[source], "+.3f")


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
