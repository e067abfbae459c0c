"""`evaluate`: the loss of checkpoints on a text, and their scores on tasks."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.records.evaluation import EvaluateDryRun, Evaluation, Evaluations
from sparsedial.store import lock
from sparsedial.verbs.evaluate_settings import EXAMPLE, EvaluateSettings
from sparsedial.verbs.evaluated import compared, evaluated
from sparsedial.verbs.origin import require_checkpoint
from sparsedial.verbs.scored_tasks import cost, touched, write_answers


def evaluate(settings: EvaluateSettings) -> Evaluation | Evaluations | EvaluateDryRun:
    """Loss in nats per token and bits per byte of a text, each token scored once; scores on tasks; or their cost.

    One checkpoint gives its own answer; several, or several settings of its dial, are also compared, on the same items.

    Raises: UserError for a damaged checkpoint, a text that is missing, empty or does not fit the model, or a task that
    is unknown or whose items cannot be had.
    """
    folders = [Path(name) for name in settings.checkpoint]
    for folder in folders:
        require_checkpoint(folder)
    if not settings.text and not settings.tasks:
        raise UserError("no text and no task is given", hint=EXAMPLE, field="text")
    tasks = _tasks(settings)
    if settings.dry_run:
        return cost(folders[0], tasks, settings)
    with lock(settings.out) if tasks else nullcontext():
        shares = touched(tasks, settings)
        found = [one for folder in folders for one in evaluated(folder, tasks, shares, settings)]
        whole = found[0].answer if len(found) == 1 else compared(found)
        if tasks:
            write_answers(settings.out, whole, [one.results for one in found])
    return whole


def _tasks(settings: EvaluateSettings) -> dict[str, Any]:
    """lm-eval's tasks by name; none where none is asked for."""
    if not settings.tasks:
        return {}
    os.environ.setdefault("TQDM_DISABLE", "1")  # lm-eval's and datasets' bars; read when tqdm is imported
    from sparsedial.evaluation.tasks import load_tasks, named

    return load_tasks(named(settings.tasks), settings.data)
