"""The Profile: seconds, joules and bytes of a training step on one machine, as a function of shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sparsedial.errors import UserError
from sparsedial.machine.at_once import times_one
from sparsedial.machine.energy import Meter, StatedPower, metered, stated_gpu_power, stated_power
from sparsedial.machine.memory import Memory, step_bytes
from sparsedial.machine.timing import Timing, measure_in_turn
from sparsedial.records.profile import ProfileFile, StepTiming
from sparsedial.records.quantities import Machine
from sparsedial.records.recipe import OptimizerName
from sparsedial.records.record import plain, read
from sparsedial.shape.counts import flops_by_part, total_parameters
from sparsedial.shape.shape import Shape
from sparsedial.store import digest
from sparsedial.units import count_words

VALUE_BYTES = {"float32": 4, "bfloat16": 2, "bfloat16_products": 2}  # of an activation, by the dtype of training
# What a step's time is made of; every coefficient is a time and cannot be negative.
FEATURES = (
    "step",  # once a step: Python, optimizer calls
    "layers",  # once a layer
    "sparse_layers",  # once a sparse layer: routing, sorting
    "experts",  # once an expert of a sparse layer: one small product each
    "dense_flops",  # projections, feed-forward, shared experts, router, unembedding
    "expert_flops",  # products over the routed rows
    "attention_scores",  # positions squared, per head: the softmax takes longer than the products
    "stream",  # tokens x d_model x layers: norms and additions
    "logits",  # tokens x vocabulary: softmax
    "routed_rows",  # tokens x top_k x d_model: gathers
    "router_scores",  # tokens x experts: sigmoid, choice
    "parameters",  # optimizer traffic
)


LATER = {"at_once": [], "optimizer": "adamw"}  # what profiles of an earlier version would have said


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A predicted figure, or a column of them, with the interval that follows from the profile's own error."""

    value: Any
    low: Any
    high: Any

    def times(self, factor: float) -> Estimate:
        """The figure and its interval in another currency, which costs this much for each unit."""
        return Estimate(value=self.value * factor, low=self.low * factor, high=self.high * factor)


class Profile(ProfileFile, frozen=True, kw_only=True):
    """A linear model of step time over physical features, with its error on shapes it was not fitted to."""

    memory: Memory | None = None  # None where no peaks were measured: bytes are then only counted

    def step_seconds(self, shape: Any, batch: int, context: int) -> Estimate:
        """Seconds of one training step."""
        values = features(shape, batch, context)
        seconds = sum(self.coefficients[name] * values[name] for name in FEATURES)
        return Estimate(
            value=seconds, low=seconds / (1 + self.error_quantile), high=seconds * (1 + self.error_quantile)
        )

    def seconds(self, shape: Shape, tokens: float, batch: int, context: int) -> Estimate:
        """Seconds to train on some tokens."""
        steps = tokens / (batch * context)
        step = self.step_seconds(shape, batch, context)
        return Estimate(value=steps * step.value, low=steps * step.low, high=steps * step.high)

    def joules(self, shape: Shape, tokens: float, batch: int, context: int) -> Estimate:
        """Joules to train on some tokens: seconds times the watts metered or stated."""
        seconds = self.seconds(shape, tokens, batch, context)
        return Estimate(value=seconds.value * self.watts, low=seconds.low * self.watts, high=seconds.high * self.watts)

    def memory_bytes(self, shape: Shape, batch: int, context: int) -> float:
        """Peak bytes of a training process; without calibration, the counted parts without the process itself."""
        if self.memory is None:
            return float(step_bytes(shape, batch, context, VALUE_BYTES[self.dtype]).total)
        return float(self.memory.bytes(shape, batch, context, VALUE_BYTES[self.dtype]))

    def speedup(self, runs: int, step_seconds: float) -> float:
        """The steps of so many runs at once, over those of one alone whose step takes these seconds.

        On a CPU each has a core of its own.
        """
        return float(runs) if self.device == "cpu" else times_one(self.at_once, runs, step_seconds)

    def host_speedup(self, runs: int) -> float:
        """The same for what runs do beside training, as scoring: on a GPU one process does it for one after another."""
        return float(runs) if self.device == "cpu" else 1.0

    @property
    def start_seconds(self) -> float:
        """Of a run's start where it was measured: on a GPU, which captures its graphs."""
        return max((row.start_seconds for row in self.at_once), default=0.0)

    def watts_of(self, runs: int) -> float:
        """The power of so many runs at once: on a GPU, that of the card.

        On a CPU it is at most that: a metered processor's power at rest counts once for each run.
        """
        return self.watts * self.host_speedup(runs)

    @property
    def no_power(self) -> str | None:
        """Why the watts are not known: earlier versions wrote 0 on machines with a meter. None where they are."""
        return None if self.watts > 0 else f"the profile of this machine says {self.watts:g} W: its meter was not read"

    def require_power(self) -> None:
        """Raises: UserError where the watts are not known."""
        if self.no_power is not None:
            raise UserError(self.no_power, hint="measure this machine again (sparsedial profile)")

    @property
    def digest(self) -> str:
        """What a study and its plan name the profile by; one without what came later is named as before."""
        return digest({name: value for name, value in plain(self).items() if LATER.get(name, ...) != value})


def read_profile(path: Path) -> Profile:
    """The profile of a `profile.json`.

    Raises: UserError where the file is not a profile of this version.
    """
    profile = read(path, Profile)
    if set(profile.coefficients) != set(FEATURES) or profile.dtype not in VALUE_BYTES:
        raise UserError(
            f"{path}: not a profile of this version: its coefficients or its dtype {profile.dtype} differ",
            hint="measure this machine again",
        )
    return profile


Measure = Callable[[list[Shape], int, int, float], Profile]  # of shapes, a batch and a context, within some seconds


def features(shape: Any, batch: int, context: int) -> dict[str, Any]:
    """The physical quantities of one training step of a Shape, or of Shapes as columns."""
    tokens = batch * context
    parts = flops_by_part(shape, context)
    dense = ("attention_projections", "shared_experts", "dense_feed_forward", "router", "unembedding")
    return {
        "step": 1.0,
        "layers": 1.0 * shape.layers,
        "sparse_layers": 1.0 * shape.sparse_layers,
        "experts": 1.0 * shape.all_experts,
        "dense_flops": 3.0 * tokens * sum(parts[name] for name in dense),
        "expert_flops": 3.0 * tokens * parts["routed_experts"],
        "attention_scores": 1.0 * shape.layers * shape.heads * batch * context**2,
        "stream": 1.0 * tokens * shape.d_model * shape.layers,
        "logits": 1.0 * tokens * shape.vocab_size,
        "routed_rows": 1.0 * tokens * shape.d_model * shape.all_choices,
        "router_scores": 1.0 * tokens * shape.all_experts,
        "parameters": 1.0 * total_parameters(shape),
    }


def measure_profile(
    make_steps: Callable[[Shape, int, int], tuple[Callable[[], None], int]],
    shapes: Sequence[Shape],
    *,
    batch: int,
    context: int,
    budget_seconds: float,
    machine: Machine,
    device: str,
    threads: int,
    dtype: str,
    optimizer: OptimizerName = "adamw",
    meter: Meter,
    memory: Memory | None = None,
    rounds: int = 3,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> Profile:
    """Time a training step of each shape in turn, meter the timed steps, and fit the model.

    `make_steps` builds steps for a shape, a batch and a context; a call takes so many, and returns when they are done.
    `report` gets how many turns are done, and of how many.
    """
    made = {shape: make_steps(shape, batch, context) for shape in dict.fromkeys(shapes)}
    calls = {shape: call for shape, (call, _) in made.items()}
    timings = measure_in_turn(
        calls,
        rounds=rounds,
        round_seconds=budget_seconds / (rounds * len(calls)),
        turn=partial(metered, meter),
        report=report,
    )
    power = _power(meter, machine, device, threads)
    rows = tuple(_row(shape, timing, made[shape][1], batch, context) for shape, timing in timings.items())
    coefficients, errors = fit_steps([row.features for row in rows], [row.median_seconds for row in rows])
    return Profile(
        machine=machine,
        device=device,
        threads=threads,
        dtype=dtype,
        optimizer=optimizer,
        batch=batch,
        context=context,
        coefficients=coefficients,
        median_relative_error=float(np.median(errors)),
        max_relative_error=float(np.max(errors)),
        error_quantile=float(np.quantile(errors, 0.9)),
        watts=power.watts,
        watts_source=power.source,
        metered=power.metered,
        rows=rows,
        memory=memory,
    )


def _power(meter: Meter, machine: Machine, device: str, threads: int) -> StatedPower:
    """The watts of the metered steps, or stated ones: without a meter, or where it stood still."""
    if isinstance(meter, StatedPower):
        return meter
    if meter.watts is not None:
        source = f"{meter.source}, with {count_words(threads, 'thread')} at work"
        return StatedPower(watts=meter.watts, source=source, metered=True)
    why = f"not metered: {meter.source} stood still"
    if device == "cpu":
        return stated_power(machine.processor, threads, why)
    return stated_gpu_power(next(iter(machine.gpus), "").partition(",")[0], why)


def _row(shape: Shape, timing: Timing, steps: int, batch: int, context: int) -> StepTiming:
    return StepTiming(
        shape=shape,
        d_model=shape.d_model,
        experts=shape.experts,
        features=features(shape, batch, context),
        median_seconds=timing.median_seconds / steps,
        low_seconds=timing.low_seconds / steps,
        high_seconds=timing.high_seconds / steps,
        count=timing.count,
    )


def fit_steps(rows: Sequence[Mapping[str, float]], seconds: Sequence[float]) -> tuple[dict[str, float], list[float]]:
    """Non-negative coefficients of smallest relative error, and each row's error when it is left out of the fit.

    Where few rows leave coefficients undetermined, a ridge term of a thousandth favours small ones.
    """
    design = np.array([[row[name] for name in FEATURES] for row in rows]) / np.array(seconds)[:, None]
    coefficients = _solve(design)
    errors = []
    for index in range(len(rows)):
        others = _solve(np.delete(design, index, axis=0)) if len(rows) > 3 else coefficients
        errors.append(abs(float(design[index] @ others) - 1))
    return dict(zip(FEATURES, coefficients.tolist(), strict=True)), errors


def _solve(design: np.ndarray) -> np.ndarray:
    from scipy.optimize import nnls

    scale = np.where(design.max(axis=0) > 0, design.max(axis=0), 1.0)
    ridge = 1e-3 * np.eye(design.shape[1])
    solution, _ = nnls(np.vstack([design / scale, ridge]), np.concatenate([np.ones(len(design)), np.zeros(len(ridge))]))
    return solution / scale
