"""Bytes of a training step: counted part by part, and calibrated on this machine by runs of ten steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sparsedial.shape.counts import total_parameters
from sparsedial.shape.shape import Shape
from sparsedial.store import check_fields

STEPS = 10  # of a calibrating run: from the second one on the optimizer's moments are there


@dataclass(frozen=True, kw_only=True)
class StepBytes:
    """What a training step holds when it holds most; numbers, or columns for Shapes.

    `gradients` and `activations` are what there is of them at that moment: a backward pass trades one for the other.
    """

    weights: Any
    moments: Any  # AdamW's two
    casts: Any  # the weights once more in the products' 16-bit type
    gradients: Any
    activations: Any

    @property
    def state(self) -> Any:
        """All that goes with the parameters."""
        return self.weights + self.moments + self.casts + self.gradients

    @property
    def total(self) -> Any:
        """Everything but the process itself."""
        return self.state + self.activations

    def record(self) -> dict[str, float]:
        """The parts of one shape, in bytes."""
        return {f"{name}_bytes": float(np.asarray(value)) for name, value in asdict(self).items()}


def step_bytes(shape: Any, batch: int, context: int, value_bytes: int = 4) -> StepBytes:
    """Parts of a training step's memory for a Shape, or for Shapes: weights, gradients and AdamW's moments in fp32.

    Most is held either when the backward pass begins, with every activation, or when it ends, with every gradient.
    """
    parameters = 1.0 * total_parameters(shape)
    tokens = batch * context
    kept = value_bytes * tokens * kept_values(shape)
    table = 4.0 * shape.vocab_size * shape.d_model
    head = 4.0 * tokens * shape.d_model  # the gradient with which the way back begins
    last = kept / shape.layers + value_bytes * tokens * _transient_values(shape)
    begins, ends = table + kept + head, 4 * parameters + last + head
    return StepBytes(
        weights=4 * parameters,
        moments=8 * parameters,
        casts=0.0 * parameters if value_bytes == 4 else value_bytes * parameters,
        gradients=np.where(begins > ends, table, 4 * parameters),
        activations=np.where(begins > ends, kept + head, last + head),
    )


def kept_values(shape: Any) -> Any:
    """Numbers per token that all layers keep for the backward pass: their inputs, normed and projected."""
    feed_forwards = sum(count * _feed_forward_values(shape, layer) for layer, count in shape.kinds)
    return shape.layers * _attention_values(shape) + feed_forwards


def _attention_values(shape: Any) -> Any:
    """Of one layer: input, normed, queries, keys and values as projected and as turned, the mixed heads."""
    if shape.latent_attention:
        query_dim = shape.nope_head_dim + shape.rope_head_dim
        per_head = 2 * query_dim + shape.nope_head_dim + 2 * shape.v_head_dim
        return 2 * shape.d_model + 2 * (shape.q_lora_rank + shape.kv_lora_rank) + shape.heads * per_head
    return 2 * shape.d_model + (3 * shape.heads + 4 * shape.kv_heads) * shape.head_dim


def _feed_forward_values(shape: Any, layer: Any) -> Any:
    """Of one layer: input, normed, router, and the gate and up halves of dense, routed and shared products."""
    routed = 2 * (layer.top_k + shape.shared_experts) * layer.d_expert
    return 2 * shape.d_model + 2 * layer.experts + 4 * layer.top_k + routed + 2 * layer.d_ff


def _transient_values(shape: Any) -> Any:
    """Numbers per token that one feed-forward's backward pass needs meanwhile: routed rows' gradients, activations."""
    sparse = shape.top_k * (shape.d_model + shape.d_expert) + shape.shared_experts * shape.d_expert + shape.experts
    return np.where(np.asarray(shape.experts) > 0, sparse, shape.d_ff)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Factors on the counted parts, and the process's own bytes, fitted to peaks measured on one machine."""

    process_bytes: float
    state_factor: float
    activation_factor: float
    median_relative_error: float  # each shape left out of the fit in turn
    max_relative_error: float
    rows: tuple[dict[str, Any], ...]

    def bytes(self, shape: Any, batch: int, context: int, value_bytes: int = 4) -> Any:
        """Peak bytes of a process that trains a Shape, or Shapes."""
        parts = step_bytes(shape, batch, context, value_bytes)
        return self.process_bytes + self.state_factor * parts.state + self.activation_factor * parts.activations

    @staticmethod
    def from_record(record: Mapping[str, Any], place: str = "memory") -> Memory:
        """The inverse of `asdict`.

        Raises: UserError, with the place that it came from, for a record of another version.
        """
        check_fields(record, Memory, place)
        return Memory(**{**record, "rows": tuple(record["rows"])})


def measure_memory(
    peak: Callable[[Shape, int, int], float],
    shapes: Sequence[Shape],
    batches: Sequence[int],
    context: int,
    value_bytes: int = 4,
) -> Memory:
    """Calibrate on every shape with every batch; `peak` trains ten steps in a process of its own and gives its most."""
    rows = []
    for shape in shapes:
        for batch in batches:
            parts = step_bytes(shape, batch, context, value_bytes)
            rows.append(
                {
                    "shape": shape.record(),
                    "batch": batch,
                    "context": context,
                    "state_bytes": float(parts.state),
                    "activation_bytes": float(parts.activations),
                    "peak_bytes": peak(shape, batch, context),
                }
            )
    return fit_memory(rows)


def fit_memory(rows: Sequence[Mapping[str, Any]]) -> Memory:
    """Process and factors of smallest relative error, none negative, and the error of each row left out in turn."""
    names = ("state_bytes", "activation_bytes")
    peaks = np.array([row["peak_bytes"] for row in rows])
    design = np.array([[1.0, *(row[name] for name in names)] for row in rows])
    process, state, activations = _solve(design, peaks)
    errors = [
        abs(float(design[place] @ _solve(np.delete(design, place, 0), np.delete(peaks, place)) / peaks[place]) - 1)
        for place in range(len(rows))
    ]
    return Memory(
        process_bytes=float(process),
        state_factor=float(state),
        activation_factor=float(activations),
        median_relative_error=float(np.median(errors)),
        max_relative_error=float(np.max(errors)),
        rows=tuple(dict(row) for row in rows),
    )


def _solve(design: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    from scipy.optimize import nnls

    relative = design / peaks[:, None]
    scale = relative.max(axis=0)
    return nnls(relative / scale, np.ones(len(peaks)))[0] / scale
