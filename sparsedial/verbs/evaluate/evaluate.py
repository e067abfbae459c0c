"""`evaluate`: the loss of checkpoints on a text, and their scores on tasks."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from sparsedial.errors import UserError, keeping
from sparsedial.records.evaluation import EvaluateDryRun, Evaluation, Evaluations
from sparsedial.store import lock
from sparsedial.verbs.evaluate.evaluated import compared, evaluated
from sparsedial.verbs.evaluate.scored_tasks import ANSWERS, cost, loaded, touched, write_answers
from sparsedial.verbs.evaluate.settings import EXAMPLE, EvaluateSettings
from sparsedial.verbs.origin import require_checkpoint


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
    tasks = loaded(settings)
    if settings.dry_run:
        return cost(folders[0], tasks, settings)
    with ExitStack() as kept:
        if tasks:
            kept.enter_context(lock(settings.out))
            kept.enter_context(keeping("answers to tasks are", settings.out / ANSWERS))
        shares = touched(tasks, settings)
        found = [one for folder in folders for one in evaluated(folder, tasks, shares, settings)]
        whole = found[0].answer if len(found) == 1 else compared(found)
        if tasks:
            write_answers(settings.out, whole, [one.results for one in found])
    return whole
