"""`plan`: find the best shape for a budget in any currency, under constraints, by any law."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.planning.answer import answer
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.export.exports import export_plan
from sparsedial.records.plan import Plan
from sparsedial.records.quantities import Currency
from sparsedial.records.record import write
from sparsedial.settings import setting
from sparsedial.units import parse_bytes, parse_count, parse_joules, parse_seconds
from sparsedial.verbs.origin import plan_origin
from sparsedial.verbs.plan.kept_tokens import with_kept_tokens
from sparsedial.verbs.plan.space import DEFAULT_LAW, find_law, space

MOST = 1_000_000_000  # upper limit of every count
COUNTS = {"max_experts": 0} | dict.fromkeys(  # the smallest value of each
    ("devices", "serving_context", "serving_sequences", "max_repeats", "context", "vocab_size", "top_k"), 1
)
BUDGETS = ("flops", "seconds", "joules", "dollars", "gpu_hours", "target_loss")


def _like(example: str) -> partial[float]:
    return partial(parse_count, example=example)


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """A budget in one currency, a law, a machine, and constraints."""

    flops: float | None = setting(None, "training FLOPs, like 1e21", "C", parse=_like("1e21"))
    seconds: float | None = setting(None, "wall-clock time on the machine, like 10d", "T", parse=parse_seconds)
    gpu_hours: float | None = setting(
        None, "device-hours, all devices together", "H", parse=_like("500, without a unit")
    )
    joules: float | None = setting(None, "energy, like 2.5kWh", "J", parse=parse_joules)
    dollars: float | None = setting(None, "money; needs --price", "$", parse=_like("2500 or 40k"))
    target_loss: float | None = setting(
        None, "loss to reach at the lowest cost, nats per token", "L", parse=_like("2.1")
    )
    law: str = setting(DEFAULT_LAW, "a published law, a law.json, or a study's folder", "NAME|FILE")
    device: str | None = setting(None, "device to train on, like h100, or a profile.json [a study's own]", "NAME|FILE")
    devices: int = setting(1, "number of devices", "N")
    price: float | None = setting(None, "dollars per device-hour", "$", parse=_like("2.5"))
    max_total_parameters: float | None = setting(None, "maximum total parameters, like 30B", "N", parse=_like("30B"))
    max_active_parameters: float | None = setting(None, "maximum parameters active per token", "N", parse=_like("3B"))
    max_experts: int | None = setting(None, "maximum routed experts per layer", "E")
    top_k: int | None = setting(None, "routed experts per token", "K")
    sparsity: float | None = setting(None, "allow only this sparsity, 1 - top_k/experts; 0 is dense", "S")
    memory: float | None = setting(
        None, "memory for training, on all devices together, like 640GB", "M", parse=parse_bytes
    )
    serving_memory: float | None = setting(None, "memory for weights and cache when serving", "M", parse=parse_bytes)
    serving_context: int = setting(8192, "positions in the cache when serving", "N")
    serving_sequences: int = setting(1, "sequences served at once", "N")
    decode_speed: float | None = setting(None, "minimum tokens per second of one sequence", "R", parse=_like("50"))
    data_tokens: float | None = setting(
        None, "unique tokens available [of a study with --select, those it keeps]", "D", parse=_like("100B")
    )
    max_repeats: float = setting(4.0, "maximum number of times that the data are read", "R")
    inference_tokens: float | None = setting(
        None, "tokens served over the model's life, paid from the budget", "D", parse=_like("1T")
    )
    context: int | None = setting(None, "tokens per training window [2048]", "N")
    vocab_size: int | None = setting(None, "vocabulary size [50432]", "V")
    out: Path | None = setting(None, "also write the plan to this file", "FILE")
    export: Path | None = setting(
        None, "also write files for train, transformers, torchtitan and Megatron-LM to this folder", "DIR"
    )

    def __post_init__(self) -> None:
        given = self._given
        if len(given) != 1:
            names = ", ".join(f"<{name}>" for name in given)
            problem = f"{names} contradict each other" if names else "no budget was given"
            raise UserError(problem, hint=f"give exactly one of {', '.join(f'<{name}>' for name in BUDGETS)}")
        for name, least in COUNTS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= (math.inf if name == "max_repeats" else MOST):
                side = f"below {least}" if value < least else f"above {MOST:,}"
                raise UserError(f"{value:g} is {side}", field=name)

    @property
    def _given(self) -> list[str]:
        return [name for name in BUDGETS if getattr(self, name) is not None]

    @property
    def budget(self) -> Budget:
        """The given budget; a target loss is reached with the fewest FLOPs."""
        if self.target_loss is not None:
            return Budget(currency="flops", value=None, target_loss=self.target_loss)
        if self.gpu_hours is not None:
            return Budget(currency="seconds", value=3600 * self.gpu_hours / self.devices)
        currency = cast("Currency", self._given[0])
        return Budget(currency=currency, value=getattr(self, currency))

    @property
    def constraints(self) -> Constraints:
        """The constraints beside the budget."""
        return Constraints(
            max_total_parameters=self.max_total_parameters,
            max_active_parameters=self.max_active_parameters,
            max_experts=self.max_experts,
            top_k=self.top_k,
            sparsity=self.sparsity,
            training_memory_bytes=self.memory,
            serving_memory_bytes=self.serving_memory,
            serving_positions=self.serving_context,
            serving_sequences=self.serving_sequences,
            min_decode_tokens_per_second=self.decode_speed,
            data_tokens=self.data_tokens,
            max_repeats=self.max_repeats,
            inference_tokens=self.inference_tokens or 0.0,
        )


def plan(settings: PlanSettings) -> Plan:
    """The best shape and tokens for a budget, with the error, the dense rival, the limits, and other laws' answers.

    Raises: UserError for an unknown law or device, or where no shape meets the budget and the constraints.
    """
    found = find_law(settings.law)
    shapes, costs = space(settings, found)
    others = found.study is None  # published laws are about other text and far larger models than a study's
    constraints, kept = with_kept_tokens(settings.constraints, found.study)
    record = answer(found.law, settings.law, shapes, settings.budget, constraints, costs, found.misleads, others=others)
    if kept is not None:
        record = replace(record, warnings=(*record.warnings, kept))
    origin = found.study and plan_origin(found.study, found.law, costs)
    if origin is not None:
        record = replace(record, origin=origin, origin_reason=None)
    if settings.out is not None:
        write(settings.out, record)
    exported = () if settings.export is None else export_plan(record, settings.export)
    return replace(record, exported=exported, out=settings.out and str(settings.out))
