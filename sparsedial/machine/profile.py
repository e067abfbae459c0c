"""The Profile: seconds, joules and bytes of a training step on one machine, as a function of shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sparsedial.errors import UserError
from sparsedial.machine.energy import Meter
from sparsedial.machine.memory import Memory, step_bytes
from sparsedial.machine.timing import Timing, measure_in_turn
from sparsedial.shape.counts import flops_by_part, total_parameters
from sparsedial.shape.shape import Shape
from sparsedial.store import check_fields

VALUE_BYTES = {"float32": 4, "bfloat16": 2}  # of an activation, by the dtype of training
# What a step's time is made of; every coefficient is a time and cannot be negative.
FEATURES = (
    "step",  # once a step: Python, optimizer calls
    "layers",  # once a layer
    "sparse_layers",  # once a sparse layer: routing, sorting
    "experts",  # once an expert of a sparse layer: one small product each
    "dense_flops",  # projections, feed-forward, shared experts, router, unembedding
    "expert_flops",  # products over the routed rows
    "attention_scores",  # positions squared, per head: softmax, not arithmetic, decides
    "stream",  # tokens x d_model x layers: norms and additions
    "logits",  # tokens x vocabulary: softmax
    "routed_rows",  # tokens x top_k x d_model: gathers
    "router_scores",  # tokens x experts: sigmoid, choice
    "parameters",  # optimizer traffic
)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A predicted figure, or a column of them, with the spread that the profile's own error gives it."""

    value: Any
    low: Any
    high: Any


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A linear model of step time over physical features, with its error on shapes it was not fitted to."""

    machine: dict[str, Any]
    device: str
    threads: int
    dtype: str
    batch: int
    context: int
    coefficients: dict[str, float]  # seconds per unit of the feature
    median_relative_error: float  # leave one shape out
    max_relative_error: float
    error_quantile: float  # 90 % of left-out shapes were closer
    watts: float
    watts_source: str
    metered: bool
    rows: tuple[dict[str, Any], ...]  # what was measured
    memory: Memory | None = None  # None where no peaks were measured: bytes are then counted alone

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
        """Peak bytes of a training process as calibrated; uncalibrated the counted parts, without the process."""
        if self.memory is None:
            return float(step_bytes(shape, batch, context, VALUE_BYTES[self.dtype]).total)
        return float(self.memory.bytes(shape, batch, context, VALUE_BYTES[self.dtype]))

    def record(self) -> dict[str, Any]:
        """The profile as `profile.json` holds it."""
        return asdict(self)

    @staticmethod
    def from_record(record: Mapping[str, Any], place: str = "profile") -> Profile:
        """The inverse of `record`; keys of the file itself are passed over.

        Raises: UserError, with the place that it came from, for a record that is no profile of this version.
        """
        check_fields(record, Profile, place)
        if set(record["coefficients"]) != set(FEATURES) or record["dtype"] not in VALUE_BYTES:
            raise UserError(
                f"{place}: no profile of this version: its coefficients or its dtype {record['dtype']} are others",
                hint="`sparsedial profile` measures this machine again",
            )
        names = Profile.__dataclass_fields__
        values = {key: value for key, value in record.items() if key in names}
        memory = values.get("memory")
        values["memory"] = memory and Memory.from_record(memory, place)
        return Profile(**{**values, "rows": tuple(values["rows"])})


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
    make_step: Callable[[Shape, int, int], Callable[[], None]],
    shapes: Sequence[Shape],
    *,
    batch: int,
    context: int,
    budget_seconds: float,
    machine: dict[str, Any],
    device: str,
    threads: int,
    dtype: str,
    meter: Meter,
    memory: Memory | None = None,
    rounds: int = 3,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> Profile:
    """Time a training step of each shape in turn and fit the model.

    `make_step` builds a step for a shape, a batch and a context; what it builds waits for its own work. `told` hears
    how far the timing is.
    """
    calls = {shape: make_step(shape, batch, context) for shape in dict.fromkeys(shapes)}
    timings = measure_in_turn(calls, rounds=rounds, round_seconds=budget_seconds / (rounds * len(calls)), told=told)
    rows = tuple(_row(shape, timing, batch, context) for shape, timing in timings.items())
    coefficients, errors = fit_steps([row["features"] for row in rows], [row["median_seconds"] for row in rows])
    return Profile(
        machine=machine,
        device=device,
        threads=threads,
        dtype=dtype,
        batch=batch,
        context=context,
        coefficients=coefficients,
        median_relative_error=float(np.median(errors)),
        max_relative_error=float(np.max(errors)),
        error_quantile=float(np.quantile(errors, 0.9)),
        watts=meter.watts,
        watts_source=meter.source,
        metered=meter.metered,
        rows=rows,
        memory=memory,
    )


def _row(shape: Shape, timing: Timing, batch: int, context: int) -> dict[str, Any]:
    return {
        "shape": shape.record(),
        "d_model": shape.d_model,
        "experts": shape.experts,
        "features": features(shape, batch, context),
        **timing.record(),
    }


def fit_steps(rows: Sequence[Mapping[str, float]], seconds: Sequence[float]) -> tuple[dict[str, float], list[float]]:
    """Non-negative coefficients of smallest relative error, and each row's error when it is left out of the fit.

    Where few rows leave coefficients open, a pull of a thousandth towards small ones decides.
    """
    design = np.array([[row[name] for name in FEATURES] for row in rows]) / np.array(seconds)[:, None]
    coefficients = _solve(design)
    errors = []
    for place in range(len(rows)):
        others = _solve(np.delete(design, place, axis=0)) if len(rows) > 3 else coefficients
        errors.append(abs(float(design[place] @ others) - 1))
    return dict(zip(FEATURES, coefficients.tolist(), strict=True)), errors


def _solve(design: np.ndarray) -> np.ndarray:
    from scipy.optimize import nnls

    scale = np.where(design.max(axis=0) > 0, design.max(axis=0), 1.0)
    pull = 1e-3 * np.eye(design.shape[1])
    solution, _ = nnls(np.vstack([design / scale, pull]), np.concatenate([np.ones(len(design)), np.zeros(len(pull))]))
    return solution / scale
