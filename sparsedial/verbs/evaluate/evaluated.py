"""One checkpoint's answers, one for each setting of its dial, and how several answers differ, for `evaluate`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsedial.machine.hardware import describe
from sparsedial.records.evaluation import CheckpointName, Evaluation, Evaluations, Harness, Paired, PairedDifference
from sparsedial.records.setting import Setting
from sparsedial.shape.config import load_config
from sparsedial.shape.turned import Turned
from sparsedial.verbs.asked_setting import asked_settings, told_by
from sparsedial.verbs.evaluate.scored_tasks import Touched, score_tasks
from sparsedial.verbs.evaluate.scored_text import LossOfText, prepared_text, text_loss
from sparsedial.verbs.evaluate.settings import EvaluateSettings

if TYPE_CHECKING:
    from sparsedial.evaluation.judge import Result
    from sparsedial.model.transformer import Transformer

TEXT, LOSS = "text", "loss"  # what is compared beside tasks


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """An answer, and what it is compared by."""

    answer: Evaluation
    loss: LossOfText | None
    results: Mapping[str, Result]  # by task

    @property
    def name(self) -> str:
        """What was evaluated."""
        path, setting = self.answer.checkpoint.path, self.answer.setting
        return path if setting is None else _called(path, setting)


def _called(path: str, setting: Setting) -> str:
    return f"{path} at {setting.name}"


def evaluated(
    folder: Path, tasks: Mapping[str, Any], shares: Touched, settings: EvaluateSettings
) -> Iterator[Evaluated]:
    """A checkpoint as it was trained, or at each setting that is asked for."""
    from sparsedial.model.checkpoint import load
    from sparsedial.model.digests import digest_of
    from sparsedial.model.gates import gates_of
    from sparsedial.model.turned import at_setting

    began = time.perf_counter()
    model = load(folder)
    name = CheckpointName(path=str(folder), digest=digest_of(folder), family=str(load_config(folder).get("model_type")))
    positions: Sequence[Turned | None] = [None]
    if settings.settings:
        positions = asked_settings(folder, model.shape, settings.settings)
    gates = gates_of(folder, model.shape, filter(None, positions))
    with prepared_text(folder, model.shape, settings) as text:
        for turned in positions:
            at = model if turned is None else at_setting(model, turned, gates)
            setting = None if turned is None else Setting.of(turned, model.shape)
            loss = None if text is None else text_loss(at, text, settings, setting)
            results = _results(folder, at, name, setting, tasks, shares, settings) if tasks else {}
            answer = _answer(name, setting, loss, results, time.perf_counter() - began)
            yield Evaluated(answer=answer, loss=loss, results=results)
            began = time.perf_counter()


def _results(
    folder: Path,
    model: Transformer,
    name: CheckpointName,
    setting: Setting | None,
    tasks: Mapping[str, Any],
    shares: Touched,
    settings: EvaluateSettings,
) -> dict[str, Result]:
    """The results of all tasks; answers that are kept are those of this setting."""
    if setting is None:
        return score_tasks(folder, model, name.path, name.digest, tasks, shares, settings)
    called, key = _called(name.path, setting), told_by(folder, name.digest, setting)
    return score_tasks(folder, model, called, key, tasks, shares, settings)


def _answer(
    name: CheckpointName,
    setting: Setting | None,
    loss: LossOfText | None,
    results: Mapping[str, Result],
    seconds: float,
) -> Evaluation:
    total = loss and loss.losses.total
    return Evaluation(
        checkpoint=name,
        setting=setting,
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
        tasks={task: result.score for task, result in results.items()} if results else None,
        harness=_harness() if results else None,
        machine=describe(),
        wall_seconds=seconds,
    )


def _harness() -> Harness:
    from importlib.metadata import version

    return Harness(name="lm-eval", version=version("lm_eval"))


def compared(found: Sequence[Evaluated]) -> Evaluations:
    """Several answers, with the differences of every two on each task's own metric; of settings, on the text too."""
    paired = [
        Paired(task=task, metric=metric, first=first.name, second=second.name, difference=apart)
        for first, second in combinations(found, 2)
        for task, metric, apart in _differences(first, second)
    ]
    return Evaluations(results=tuple(one.answer for one in found), paired=tuple(paired), comparisons=len(paired))


def _differences(first: Evaluated, second: Evaluated) -> Iterator[tuple[str, str, PairedDifference]]:
    from sparsedial.evaluation.compare import difference, loss_difference

    settings = first.answer.setting and first.answer.checkpoint == second.answer.checkpoint
    if settings and first.loss and second.loss:
        apart = loss_difference(first.loss.losses.units, second.loss.losses.units)
        if apart is not None:
            yield TEXT, LOSS, apart
    for task, result in first.results.items():
        one, other = result.values, second.results[task].values
        apart = None if one is None or other is None else difference(one, other)
        if one is not None and apart is not None:
            yield task, one.metric, apart
