"""Scores of a model on tasks, from lm-eval's answers item by item."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np
import torch
from lm_eval.evaluator import evaluate

from sparsedial.errors import UserError
from sparsedial.evaluation.compare import Values
from sparsedial.evaluation.gold import Gold, nats_of
from sparsedial.evaluation.harness import HarnessModel
from sparsedial.evaluation.statistics import NO_BETTER, interval, p_of_chance_by_group, share_interval
from sparsedial.kernels.metering import meter
from sparsedial.machine.energy import Meter, long_period, spent
from sparsedial.records.evaluation import Judged, TaskScore, TaskSize
from sparsedial.records.quantities import Interval

Sample = Mapping[str, Any]  # lm-eval's record of one item that passed one filter
PREFERRED = ("exact_match", "acc_norm", "acc", "f1")  # which metric stands for a task, where it has several
SHARED = ("passage", "context")  # fields whose equal values mark items that share a document
FEWSHOT_SEED = 1234  # lm-eval's own


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How tasks are asked."""

    limit: int | None = None  # items of each, its first ones
    shots: int | None = None  # solved examples before each item; None: as the task says
    chat: bool = False  # as messages in the tokenizer's chat template

    def prepare(self, task: Any) -> None:
        """Set the solved examples of a task as lm-eval's `simple_evaluate` does: a task that says 0 keeps 0."""
        stated = task.get_config("num_fewshot")
        if stated is None or (self.shots is not None and stated != 0):
            task.set_config(key="num_fewshot", value=self.shots or 0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)

    def template(self, model: HarnessModel) -> dict[str, Any]:
        """What lm-eval wants to know of a chat."""
        return {
            "apply_chat_template": self.chat,
            "fewshot_as_multiturn": self.chat,
            "chat_template": model.apply_chat_template if self.chat else None,
            "tokenizer_name": model.tokenizer_name if self.chat else "",
        }


@dataclass(frozen=True, kw_only=True)
class Answered:
    """lm-eval's answers to one task."""

    name: str
    task: Any
    samples: Sequence[Sample]  # an entry for each item and filter
    left_out: int  # items that are too long for the model, and not among the samples
    truncated: int
    shots: int
    version: float | str
    seconds: float
    joules: float
    power: Meter
    resumed: bool  # whether an earlier call gave some of the answers

    @cached_property
    def items(self) -> list[Sample]:
        """An entry for each item."""
        return self.of_filter(self.samples[0]["filter"])

    def of_filter(self, key: str) -> list[Sample]:
        """An entry for each item: what passed one filter."""
        return [sample for sample in self.samples if sample["filter"] == key]

    @cached_property
    def groups(self) -> list[Hashable]:
        """What marks items that share a document; each item's own number where none do."""
        fields = [name for name in SHARED if all(name in sample["doc"] for sample in self.items)]
        return [sample["doc"][fields[0]] if fields else sample["doc_id"] for sample in self.items]

    @property
    def metrics(self) -> dict[str, tuple[str, str]]:
        """Each metric's key and filter, by the name that it has in answers."""
        keys = list(dict.fromkeys(sample["filter"] for sample in self.samples))
        return {
            name if key == "none" else f"{name},{key}": (name, key)
            for key in keys
            for name in self.task.aggregation()
            if name in self.of_filter(key)[0]
        }

    @property
    def primary(self) -> str:
        """The metric that stands for the task."""
        preferred = [name for word in PREFERRED for name in self.metrics if name.startswith(word)]
        return [*preferred, *self.metrics][0]


@dataclass(frozen=True, kw_only=True)
class Result:
    """A task's score, its items, and what is compared with another model's."""

    score: TaskScore
    items: tuple[Judged, ...]
    values: Values | None  # of the primary metric; None where it is no mean over items


def require_askable(model: HarnessModel, name: str, task: Any, asking: Asking) -> None:
    """Raises: UserError for a task without items, or one whose answers do not fit the model or its tokenizer."""
    if not len(task.eval_docs):
        raise UserError(f"task '{name}' has no items", field="tasks")
    if task.OUTPUT_TYPE == "generate_until":
        try:
            model.room(model.greedily(task.config.generation_kwargs))
        except UserError as error:
            raise UserError(f"task '{name}': {error.problem}", hint="leave the task out", field="tasks") from error
    asking.prepare(task)
    if hasattr(task, "require_shots"):  # one with local rows
        task.require_shots(task.get_config("num_fewshot"))
    if asking.chat:
        model.apply_chat_template([{"role": "user", "content": ""}])


def size(model: HarnessModel, task: Any, asking: Asking) -> TaskSize:
    """How much the model would read and write for a task."""
    asking.prepare(task)
    model.begin(cut=_may_be_cut(task), refuse=False)
    task.build_all_requests(limit=asking.limit, rank=0, world_size=1, **asking.template(model))
    tokens, written = model.size(task.instances)
    too_long = {request.doc_id for request in task.instances if request.args[0] in model.too_long}
    items = {request.doc_id for request in task.instances}
    return TaskSize(items=len(items), items_too_long=len(too_long), tokens=tokens, tokens_written=written)


def _may_be_cut(task: Any) -> bool:
    """Whether an item that is too long may lose its beginning; where that holds the answer it is left out."""
    return not (task.config.metadata or {}).get("whole_items", False)


def judge(
    model: HarnessModel,
    name: str,
    task: Any,
    asking: Asking,
    touched: Mapping[int, float | None] | None = None,
    called: str | None = None,
) -> Result:
    """Ask a model all items of a task; `called` is the model's name in its items [its folder].

    `touched` has the share of an item's 13-word runs that some text has, by the item's number.

    Raises: UserError where no item fits the model.
    """
    answered = _ask(model, name, task, asking)
    return Result(
        score=_score(answered, model, touched),
        items=tuple(_item(answered, sample, called or str(model.prompts.folder), touched) for sample in answered.items),
        values=_values(answered),
    )


def _ask(model: HarnessModel, name: str, task: Any, asking: Asking) -> Answered:
    """All answers to a task, and what they cost."""
    asking.prepare(task)
    model.begin(cut=_may_be_cut(task), refuse=False)
    reused, power = model.kept.reused, meter(model.scorer.device.type, torch.get_num_threads())
    began = time.perf_counter()
    with long_period(power):
        results: Any = evaluate(
            model,
            {"tasks": {name: task}, "groups": {}, "group_map": {}},
            limit=asking.limit,
            bootstrap_iters=0,
            apply_chat_template=asking.chat,
            fewshot_as_multiturn=asking.chat,
        )
    seconds = time.perf_counter() - began
    samples = results["samples"][name]
    out, long = _asked_with(samples, model.not_asked), _asked_with(samples, model.too_long)
    kept = [sample for sample in samples if sample["doc_id"] not in out]
    if not kept:
        raise UserError(
            f"task '{name}': no item fits the model's context of {model.context} tokens",
            hint="leave the task out; answers to the others are kept",
            field="tasks",
        )
    return Answered(
        name=name,
        task=task,
        samples=kept,
        left_out=len(out),
        truncated=len(long - out),
        shots=results["n-shot"][name],
        version=results["versions"][name],
        seconds=seconds,
        joules=power.joules(seconds),
        power=power,
        resumed=model.kept.reused > reused,
    )


def _asked_with(samples: Sequence[Sample], contexts: Set[str]) -> set[int]:
    """The items that were asked with one of these contexts."""
    return {sample["doc_id"] for sample in samples if any(asked[0] in contexts for asked in sample["arguments"])}


def _score(answered: Answered, model: HarnessModel, touched: Mapping[int, float | None] | None) -> TaskScore:
    gold = Gold.of(answered.task, answered.items, model)
    p_value = None if gold.chance is None else _p_of_guessing(answered, gold.chance)
    items, groups, stated = len(answered.items), answered.groups, answered.task.config.metadata or {}
    clean = None if touched is None else [not touched.get(sample["doc_id"]) for sample in answered.items]
    return TaskScore(
        version=answered.version,
        licence=stated.get("licence"),
        source=stated.get("source"),
        data_digest=stated.get("data_digest"),
        shots=answered.shots,
        items=items,
        items_truncated=answered.truncated,
        items_left_out=answered.left_out,
        metrics={name: _metric(answered, name) for name in answered.metrics},
        primary=answered.primary,
        chance=gold.chance,
        at_chance=None if p_value is None else p_value > NO_BETTER,
        p_value=p_value,
        answer_bits_per_byte=_over(gold.bits_per_byte, groups),
        gold_rank=_over(gold.ranks, groups),
        margin_nats=_over(gold.margins, groups),
        items_per_second=None if answered.resumed else items / answered.seconds,
        joules_per_item=None if answered.resumed else spent(answered.power, answered.joules / items),
        contaminated_items=None if clean is None else items - sum(clean),
        metrics_without_contaminated=(
            {name: _metric(answered, name, clean) for name in answered.metrics} if clean and any(clean) else None
        ),
    )


def _p_of_guessing(answered: Answered, chance: float) -> float | None:
    """Whether guessing does as well by the metric that stands for the task; None where items are not right or wrong."""
    metric, key = answered.metrics[answered.primary]
    right = [sample[metric] for sample in answered.of_filter(key)]
    return p_of_chance_by_group(right, answered.groups, chance) if set(right) <= {0, 1} else None


def _over(values: Sequence[float] | None, groups: Sequence[Hashable]) -> Interval | None:
    return None if values is None else interval(values, groups)


def _metric(answered: Answered, name: str, wanted: Sequence[bool] | None = None) -> Interval:
    """A metric over all items, or over those that are wanted."""
    metric, key = answered.metrics[name]
    values, groups = [sample[metric] for sample in answered.of_filter(key)], answered.groups
    if wanted is not None:
        values, groups = list(compress(values, wanted)), list(compress(groups, wanted))
    aggregate = answered.task.aggregation()[metric]
    if not _is_mean(values, aggregate):
        return interval(values, groups, aggregate)
    if set(values) <= {0, 1} and len(set(groups)) == len(groups) > 1:
        return share_interval(round(sum(values)), len(values))
    return interval(values, groups)


def _is_mean(values: Sequence[Any], aggregate: Callable[[list[Any]], float]) -> bool:
    plain = all(isinstance(value, int | float | np.number) for value in values)
    return plain and math.isclose(aggregate(list(values)), float(np.mean(values)), rel_tol=1e-12, abs_tol=1e-12)


def _values(answered: Answered) -> Values | None:
    """What each item adds to the metric that stands for the task."""
    metric, key = answered.metrics[answered.primary]
    samples = answered.of_filter(key)
    if not _is_mean([sample[metric] for sample in samples], answered.task.aggregation()[metric]):
        return None
    numbers = [sample["doc_id"] for sample in samples]
    return Values(
        metric=answered.primary,
        of={number: float(sample[metric]) for number, sample in zip(numbers, samples, strict=True)},
        group=dict(zip(numbers, answered.groups, strict=True)),
    )


def _item(answered: Answered, sample: Sample, path: str, touched: Mapping[int, float | None] | None) -> Judged:
    written = answered.task.OUTPUT_TYPE == "generate_until"
    nats = None if written else tuple(nats_of(sample))
    return Judged(
        checkpoint=path,
        task=answered.name,
        id=sample["doc_id"],
        choices_nats=nats,
        gold=str(sample["target"]),
        chosen=int(np.argmax(nats)) if nats and len(nats) > 1 else None,
        text=str(sample["resps"][0][0]) if written else None,
        contaminated=None if touched is None else touched.get(sample["doc_id"]),
    )
