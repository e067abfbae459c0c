"""The scores of checkpoints on tasks, comparisons of them, and what they would cost, for `evaluate`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsedial.records.evaluation import EvaluateDryRun, Evaluation, Evaluations, TaskScore
from sparsedial.records.record import write, write_lines
from sparsedial.showing.notes import note, note_skipped
from sparsedial.units import count_words, human_seconds
from sparsedial.verbs.evaluate.settings import EvaluateSettings
from sparsedial.verbs.evaluate.task_items import item_texts, loaded_tasks

if TYPE_CHECKING:
    from sparsedial.evaluation.harness import HarnessModel
    from sparsedial.evaluation.judge import Asking, Result
    from sparsedial.evaluation.kept import Kept
    from sparsedial.model.transformer import Transformer

Touched = Mapping[str, Mapping[int, float | None]]  # by task and item
ANSWERS, ITEMS, ANSWER = "answers.jsonl", "items.jsonl", "evaluation.json"


def loaded(settings: EvaluateSettings) -> dict[str, Any]:
    """lm-eval's tasks by name; none where none is asked for.

    Raises: UserError for a task that is unknown or whose items cannot be had.
    """
    return loaded_tasks(settings.tasks, settings.data)


def askable(
    folder: Path, model: Transformer, tasks: Mapping[str, Any], settings: EvaluateSettings, kept: Kept | None = None
) -> HarnessModel:
    """A model of a folder as lm-eval asks it, for tasks that fit it; its answers are kept in `kept`.

    Raises: UserError for a task that does not fit the model.
    """
    from sparsedial.evaluation.harness import HarnessModel
    from sparsedial.evaluation.judge import require_askable

    asked, asking = HarnessModel.around(folder, model, kept), _asking(settings)
    for name, task in tasks.items():
        require_askable(asked, name, task, asking)
    return asked


def score_tasks(
    folder: Path,
    model: Transformer,
    name: str,
    key: str,
    tasks: Mapping[str, Any],
    shares: Touched,
    settings: EvaluateSettings,
) -> dict[str, Result]:
    """The results of all tasks of a model of this name; each answer is kept in `out` as it comes.

    `key` tells models apart whose answers are kept. `shares` are those of `touched`.

    Raises: UserError for a task that does not fit the model, before any is scored.
    """
    from sparsedial.evaluation.judge import judge
    from sparsedial.evaluation.kept import Kept

    asked, asking = askable(folder, model, tasks, settings, Kept(settings.out / ANSWERS, key)), _asking(settings)
    found = {}
    for task in tasks:
        began = time.perf_counter()
        found[task] = judge(asked, task, tasks[task], asking, shares.get(task), name)
        _say(task, found[task].score, settings, time.perf_counter() - began)
    return found


def _say(task: str, score: TaskScore, settings: EvaluateSettings, seconds: float) -> None:
    """A line on standard error about a task that is done."""
    without = "; asked without solved examples, it has none" if settings.shots and not score.shots else ""
    note(f"{task}: {count_words(score.items, 'item')} in {human_seconds(seconds)}{without}")


def touched(tasks: Mapping[str, Any], settings: EvaluateSettings) -> Touched:
    """The share of each item's 13-word runs that the text `against` has; nothing without such a text.

    Raises: UserError for a text that is missing, empty or unreadable.
    """
    if not settings.against:
        return {}
    from sparsedial.text.contamination import contamination

    texts = {
        (name, number): text
        for name, items in item_texts(tasks, settings.limit).items()
        for number, text in items.items()
    }
    found = contamination(list(texts.values()), settings.against)
    note_skipped(found.skipped)
    shares: dict[str, dict[int, float | None]] = {name: {} for name in tasks}
    for (name, number), share in zip(texts, found.shares, strict=True):
        shares[name][number] = share
    return shares


def _asking(settings: EvaluateSettings) -> Asking:
    from sparsedial.evaluation.judge import Asking

    return Asking(limit=settings.limit, shots=settings.shots, chat=settings.chat)


def write_answers(folder: Path, whole: Evaluation | Evaluations, results: Sequence[Mapping[str, Result]]) -> None:
    """Write the answer, as a record, as Markdown and as a picture, and beside it every item's.

    Raises: UserError where they cannot be written.
    """
    from sparsedial.showing.score_figure import write_scores

    write(folder / ANSWER, whole)
    write_lines(folder / ITEMS, [item for by_task in results for result in by_task.values() for item in result.items])
    write_scores(whole, folder)


def cost(folder: Path, tasks: Mapping[str, Any], settings: EvaluateSettings) -> EvaluateDryRun:
    """How much a checkpoint would read and write for the tasks, and how long that takes by a short trial.

    Raises: UserError for a task that does not fit the model.
    """
    from sparsedial.evaluation.judge import size
    from sparsedial.evaluation.pace import seconds_per_token
    from sparsedial.model.checkpoint import load

    model, asking = askable(folder, load(folder), tasks, settings), _asking(settings)
    sizes = {name: size(model, task, asking) for name, task in tasks.items()}
    tokens, written = sum(one.tokens for one in sizes.values()), sum(one.tokens_written for one in sizes.values())
    reading, writing = seconds_per_token(model.scorer, writing=written > 0)
    return EvaluateDryRun(
        tasks=sizes,
        items=sum(one.items for one in sizes.values()),
        tokens=tokens,
        tokens_written=written,
        seconds=tokens * reading + written * writing,
    )
