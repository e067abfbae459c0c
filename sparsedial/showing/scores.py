"""Scores on tasks in words, and as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparsedial.records.evaluation import SURE, Evaluation, Evaluations, Paired, TaskScore
from sparsedial.records.quantities import Interval
from sparsedial.showing.numbers import NONE
from sparsedial.showing.settings_scores import blocks, names
from sparsedial.units import count_words, human_percent, signed

AS_SHARE = ("acc", "acc_norm", "exact_match", "f1", "em")  # metrics that are shares of items


def is_share(metric: str, value: Interval) -> bool:
    """Whether a metric is a share of the items."""
    return metric.partition(",")[0] in AS_SHARE and 0 <= value.mean <= 1


def metric_words(metric: str, value: Interval) -> str:
    """`54.0 % [40.0 %, 68.0 %]`; a metric that is no share as a plain number."""
    share = is_share(metric, value)
    ends = [value.mean, value.low, value.high]
    mean, low, high = ("?" if end is None else human_percent(end, 3) if share else f"{end:.4g}" for end in ends)
    return mean if value.low is None else f"{mean} [{low}, {high}]"


def score_notes(name: str, score: TaskScore) -> Iterator[str]:
    """What one should know of a score."""
    if score.items_left_out:
        yield f"{name}: {count_words(score.items_left_out, 'item')} left out, too long for the model"
    if score.items_truncated:
        yield f"{name}: the beginning of {count_words(score.items_truncated, 'item')} was cut, too long for the model"
    if score.contaminated_items:
        touched = f"{name}: {count_words(score.contaminated_items, 'item')} stand in the training text"
        clean = score.metrics_without_contaminated
        yield f"{touched}; without them {metric_words(score.primary, clean[score.primary])}" if clean else touched
    elif score.contaminated_items == 0:
        yield f"{name}: no item stands in the training text"


def difference_cells(scored: Evaluations) -> list[list[str]]:
    """The difference of each two, its interval, what it is of, and how sure it is; a shared name is left out."""
    paths = {one.checkpoint.path for one in scored.results}
    shared = f"{paths.pop()} at " if len(paths) == 1 else ""
    return [_difference(pair, shared) for pair in scored.paired]


def _difference(pair: Paired, shared: str) -> list[str]:
    found = pair.difference
    ends = "" if found.low is None or found.high is None else f"[{signed(found.low)}, {signed(found.high)}]"
    sure = "" if found.p_value < SURE else "not resolved, "
    return [
        signed(found.mean),
        ends,
        pair.metric,
        f"{pair.first.removeprefix(shared)} → {pair.second.removeprefix(shared)}",
        f"{sure}p = {found.p_value:.2g}, {count_words(found.items, 'item')}",
    ]


def comparisons_note(comparisons: int) -> str:
    """What many comparisons mean."""
    return f"of {comparisons} comparisons, one in twenty is this sure by chance alone"


def each(answer: Evaluation | Evaluations) -> tuple[Evaluation, ...]:
    """Each checkpoint's answer."""
    return answer.results if isinstance(answer, Evaluations) else (answer,)


def scores_page(answer: Evaluation | Evaluations, picture: str | None) -> str:
    """The scores as Markdown: tables, notes, and a picture by the name of its file, where there is one."""
    results = each(answer)
    parts = ["# Scores on tasks", _how(results), _scores(results), _bits(results), _settings(results)]
    if isinstance(answer, Evaluations) and answer.paired:
        parts += ["## Differences", "Second minus first, on the same items, with 95 % intervals.", _differences(answer)]
    if picture:
        parts.append(f"![Scores with their intervals, and what guessing gives]({picture})")
    notes = [
        f"{f'{called}, ' if len(results) > 1 else ''}{note}"
        for called, one in zip(names(results), results, strict=True)
        for name, score in (one.tasks or {}).items()
        for note in score_notes(name, score)
    ]
    parts += ["## Notes", "\n".join(f"* {note}" for note in notes)] if notes else []
    return "\n\n".join(part for part in parts if part) + "\n"


def _how(results: Sequence[Evaluation]) -> str:
    harness = results[0].harness
    made = f" Tasks, prompts and metrics are those of {harness.name} {harness.version}." if harness else ""
    return f"The metric that stands for each task, with its 95 % interval.{made}"


def _scores(results: Sequence[Evaluation]) -> str:
    rows = []
    for name, first in (results[0].tasks or {}).items():
        scores = [(one.tasks or {})[name] for one in results]
        chance = NONE if first.chance is None else human_percent(first.chance)
        asked = f"{count_words(first.items, 'item')}, {first.shots}-shot"
        rows.append([name, first.primary, asked, chance, *map(_score, scores)])
    return _table(["task", "metric", "asked", "guessing", *names(results)], rows)


def _score(score: TaskScore) -> str:
    words = metric_words(score.primary, score.metrics[score.primary])
    return f"{words}, no better than guessing" if score.at_chance else words


def _bits(results: Sequence[Evaluation]) -> str:
    """Bits per byte of the right answers; empty where no task has one."""
    rows = []
    for name in results[0].tasks or {}:
        bits = [(one.tasks or {})[name].answer_bits_per_byte for one in results]
        if any(bits):
            rows.append([name, *(NONE if one is None else metric_words("", one) for one in bits)])
    return _table(["bits per byte of the right answers", *names(results)], rows) if rows else ""


def _settings(results: Sequence[Evaluation]) -> str:
    """What each setting of a dial costs and gives; empty where none was asked for."""
    if not all(one.setting for one in results):
        return ""
    tables = [
        _table(
            [block.title, *block.heads], [[name, *row] for name, row in zip(names(results), block.cells, strict=True)]
        )
        for block in blocks(results)
    ]
    return "\n\n".join(["## Settings", *tables])


def _differences(answer: Evaluations) -> str:
    cells = difference_cells(answer)
    rows = [[pair.task, *words] for pair, words in zip(answer.paired, cells, strict=True)]
    table = _table(["task", "difference", "interval", "metric", "of", "how sure"], rows)
    return table if answer.comparisons < 2 else f"{table}\n\nNote: {comparisons_note(answer.comparisons)}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)
