"""Bytes of a training step: counted part by part, and calibrated on this machine by runs of ten steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsedial.records.plan import MemoryParts
from sparsedial.records.profile import MemoryFile, StepMemory
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.shape import Shape

STEPS = 10  # of a calibrating run; the optimizer's moments exist from the second step


@dataclass(frozen=True, kw_only=True)
class StepBytes:
    """The memory of a training step at its peak; numbers, or columns for Shapes.

    `gradients` and `activations` are those that exist at that moment: a backward pass trades one for the other.
    """

    weights: Any
    moments: Any  # AdamW's two
    casts: Any  # a copy of the weights in the products' 16-bit type
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

    @property
    def parts(self) -> MemoryParts:
        """The parts of one shape, in bytes."""
        return MemoryParts(**{f"{name}_bytes": float(np.asarray(value)) for name, value in vars(self).items()})


def step_bytes(shape: Any, batch: int, context: int, value_bytes: int = 4) -> StepBytes:
    """Parts of a training step's memory for a Shape, or for Shapes: weights, gradients and AdamW's moments in fp32.

    The peak is either at the start of the backward pass, with every activation, or at its end, with every gradient.
    """
    parameters = 1.0 * total_parameters(shape)
    tokens = batch * context
    kept = value_bytes * tokens * kept_values(shape)
    table = 4.0 * shape.vocab_size * shape.d_model
    head = 4.0 * tokens * shape.d_model  # the gradient with which the backward pass begins
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
    """Of one layer: input, normed, queries, keys and values as projected and as rotated, the mixed heads."""
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
    """Numbers per token that one feed-forward's backward pass needs for itself: routed rows' gradients, activations."""
    sparse = shape.top_k * (shape.d_model + shape.d_expert) + shape.shared_experts * shape.d_expert + shape.experts
    return np.where(np.asarray(shape.experts) > 0, sparse, shape.d_ff)


class Memory(MemoryFile, frozen=True, kw_only=True):
    """Factors on the counted parts, and the process's own bytes, fitted to peaks measured on one machine."""

    def bytes(self, shape: Any, batch: int, context: int, value_bytes: int = 4) -> Any:
        """Peak bytes of a process that trains a Shape, or Shapes."""
        parts = step_bytes(shape, batch, context, value_bytes)
        return self.process_bytes + self.state_factor * parts.state + self.activation_factor * parts.activations


def measure_memory(
    peak: Callable[[Shape, int, int], float],
    shapes: Sequence[Shape],
    batches: Sequence[int],
    context: int,
    value_bytes: int = 4,
) -> Memory:
    """Calibrate on every shape with every batch; `peak` trains ten steps in a new process and gives its peak bytes."""
    return fit_memory([_row(peak, shape, batch, context, value_bytes) for shape in shapes for batch in batches])


def _row(
    peak: Callable[[Shape, int, int], float], shape: Shape, batch: int, context: int, value_bytes: int
) -> StepMemory:
    parts = step_bytes(shape, batch, context, value_bytes)
    return StepMemory(
        shape=shape,
        batch=batch,
        context=context,
        state_bytes=float(parts.state),
        activation_bytes=float(parts.activations),
        peak_bytes=peak(shape, batch, context),
    )


def fit_memory(rows: Sequence[StepMemory]) -> Memory:
    """Non-negative process bytes and factors of smallest relative error, and each row's error when it is left out."""
    peaks = np.array([row.peak_bytes for row in rows])
    design = np.array([[1.0, row.state_bytes, row.activation_bytes] for row in rows])
    process, state, activations = _solve(design, peaks)
    errors = [
        abs(float(design[at] @ _solve(np.delete(design, at, 0), np.delete(peaks, at)) / peaks[at]) - 1)
        for at in range(len(rows))
    ]
    return Memory(
        process_bytes=float(process),
        state_factor=float(state),
        activation_factor=float(activations),
        median_relative_error=float(np.median(errors)),
        max_relative_error=float(np.max(errors)),
        rows=tuple(rows),
    )


def _solve(design: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    from scipy.optimize import nnls

    relative = design / peaks[:, None]
    scale = relative.max(axis=0)
    return nnls(relative / scale, np.ones(len(peaks)))[0] / scale
