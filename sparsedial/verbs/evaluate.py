"""`evaluate`: the loss of checkpoints on a text, and their scores on tasks."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsedial.errors import UserError
from sparsedial.machine.hardware import describe
from sparsedial.records.evaluation import CheckpointName, EvaluateDryRun, Evaluation, Evaluations, Harness
from sparsedial.shape.config import load_config
from sparsedial.store import lock
from sparsedial.verbs.evaluate_settings import EXAMPLE, EvaluateSettings
from sparsedial.verbs.origin import require_checkpoint
from sparsedial.verbs.scored_tasks import Touched, compared, cost, score_tasks, touched, write_answers
from sparsedial.verbs.scored_text import text_loss

if TYPE_CHECKING:
    from sparsedial.evaluation.judge import Result


def evaluate(settings: EvaluateSettings) -> Evaluation | Evaluations | EvaluateDryRun:
    """Loss in nats per token and bits per byte of a text, each token scored once; scores on tasks; or their cost.

    One checkpoint gives its own answer; several are also compared, on the same items.

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
        found = [_evaluated(folder, tasks, shares, settings) for folder in folders]
        answers = [answer for answer, _ in found]
        whole = answers[0] if len(found) == 1 else compared(answers, [results for _, results in found])
        if tasks:
            write_answers(settings.out, whole, [results for _, results in found])
    return whole


def _tasks(settings: EvaluateSettings) -> dict[str, Any]:
    """lm-eval's tasks by name; none where none is asked for."""
    if not settings.tasks:
        return {}
    os.environ.setdefault("TQDM_DISABLE", "1")  # lm-eval's and datasets' bars; read when tqdm is imported
    from sparsedial.evaluation.tasks import load_tasks, named

    return load_tasks(named(settings.tasks), settings.data)


def _evaluated(
    folder: Path, tasks: Mapping[str, Any], shares: Touched, settings: EvaluateSettings
) -> tuple[Evaluation, dict[str, Result]]:
    """One checkpoint's answer, and the results by task."""
    from sparsedial.model.checkpoint import load
    from sparsedial.model.digests import digest_of

    began = time.perf_counter()
    model = load(folder)
    name = CheckpointName(path=str(folder), digest=digest_of(folder), family=str(load_config(folder).get("model_type")))
    loss = text_loss(folder, model, settings) if settings.text else None
    total = loss and loss.losses.total
    results = score_tasks(folder, model, name, tasks, shares, settings) if tasks else {}
    return Evaluation(
        checkpoint=name,
        setting=None,
        loss=total and total.loss,
        bits_per_byte=total and total.bits_per_byte,
        tokens=total and total.tokens,
        bytes=total and total.bytes,
        loss_interval=total and total.loss_interval,
        bits_per_byte_interval=total and total.bits_per_byte_interval,
        interval_over=total and total.interval_over,
        context_tokens=loss and loss.context,
        stride_tokens=loss and loss.stride,
        domains=None if loss is None or loss.losses.domains is None else dict(loss.losses.domains),
        expert_load=loss and loss.losses.expert_load,
        skipped=loss and loss.skipped,
        tasks={task: result.score for task, result in results.items()} if tasks else None,
        harness=_harness() if tasks else None,
        machine=describe(),
        wall_seconds=time.perf_counter() - began,
    ), results


def _harness() -> Harness:
    from importlib.metadata import version

    return Harness(name="lm-eval", version=version("lm_eval"))
