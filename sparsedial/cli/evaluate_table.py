"""The table of an evaluation: loss on a text, scores on tasks, and differences between checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from sparsedial.cli.rows import Rows, aligned, lines
from sparsedial.cli.settings_table import settings_rows
from sparsedial.records.evaluation import EvaluateDryRun, Evaluation, Evaluations, TaskScore
from sparsedial.showing.numbers import value_words
from sparsedial.showing.scores import comparisons_note, difference_cells, metric_words, score_notes
from sparsedial.text.windows import protocol
from sparsedial.units import count_words, human_count, human_percent, human_seconds


def evaluate_table(scored: Evaluation) -> str:
    """One checkpoint's answer."""
    return lines(_rows(scored))


def evaluations_table(scored: Evaluations) -> str:
    """Answers of several checkpoints, or at several settings, and how they differ."""
    if all(one.setting for one in scored.results):
        rows = [*settings_rows(scored.results)]
    else:
        rows = [row for one in scored.results for row in (("checkpoint", one.checkpoint.path), *_rows(one))]
    if scored.paired:
        rows += [("", ""), ("compared", "second minus first, on the same items, with 95 % intervals")]
        differences = aligned(difference_cells(scored))
        rows += [("  " + pair.task, words) for pair, words in zip(scored.paired, differences, strict=True)]
        if scored.comparisons > 1:
            rows.append(("note", comparisons_note(scored.comparisons)))
    return lines(rows)


def evaluate_dry_table(cost: EvaluateDryRun) -> str:
    """What an evaluation would cost."""
    cells = [
        [
            count_words(size.items, "item"),
            f"{human_count(size.tokens)} tokens to read",
            f"{human_count(size.tokens_written)} to write at most" if size.tokens_written else "",
            f"{size.items_too_long:,} too long for the model" if size.items_too_long else "",
        ]
        for size in cost.tasks.values()
    ]
    written = f", {human_count(cost.tokens_written)} to write at most" if cost.tokens_written else ""
    whole = f"{count_words(cost.items, 'item')}, {human_count(cost.tokens)} tokens to read{written}"
    return lines([*zip(cost.tasks, aligned(cells), strict=True), ("all", whole), ("time", _about(cost.seconds))])


def _about(seconds: float) -> str:
    return f"about {human_seconds(seconds)} for one checkpoint, by a short trial of this model"


def _rows(scored: Evaluation) -> Rows:
    rows = []
    if scored.loss is not None and scored.bits_per_byte is not None:
        rows += [
            ("loss", f"{value_words(scored.loss, scored.loss_interval)} nats per token{_over(scored)}"),
            ("bits per byte", value_words(scored.bits_per_byte, scored.bits_per_byte_interval)),
            ("scored", f"{scored.tokens:,} tokens, {scored.bytes:,} bytes"),
            ("how", protocol(scored.context_tokens or 0, scored.stride_tokens or 0, scored.tokens or 0)),
        ]
    if scored.domains:
        cells = [
            [
                f"{value_words(one.loss, one.loss_interval)} nats per token",
                f"{one.bits_per_byte:.4f} bits per byte",
                f"{one.tokens:,} tokens",
            ]
            for one in scored.domains.values()
        ]
        rows += zip((f"  {name}" for name in scored.domains), aligned(cells), strict=True)
    if scored.tasks:
        rows += zip(scored.tasks, aligned([_cells(score) for score in scored.tasks.values()]), strict=True)
        rows += _notes(scored.tasks)
    return rows


def _over(scored: Evaluation) -> str:
    known = scored.loss_interval is not None and scored.loss_interval.low is not None
    return f", 95 % over {scored.interval_over}" if known else ""


def _cells(score: TaskScore) -> list[str]:
    """The metric that stands for a task, what guessing gives, the right answer's bits, and what was asked."""
    chance = "" if score.chance is None else f"chance {human_percent(score.chance)}"
    if score.at_chance:
        chance += ", no better than guessing"
    bits = score.answer_bits_per_byte
    pace = "" if score.items_per_second is None else f", {score.items_per_second:.3g} a second"
    return [
        metric_words(score.primary, score.metrics[score.primary]),
        score.primary,
        chance,
        "" if bits is None else f"answer {bits.mean:.2f} bits per byte",
        f"{count_words(score.items, 'item')}, {score.shots}-shot{pace}",
    ]


def _notes(tasks: Mapping[str, TaskScore]) -> Rows:
    return [("note", words) for name, score in tasks.items() for words in score_notes(name, score)]
