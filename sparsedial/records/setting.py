"""One position of the dial on a checkpoint: the parts of the model that a request uses."""

from __future__ import annotations

from sparsedial.records.quantities import Sparsity
from sparsedial.records.record import Record


class Setting(Record, frozen=True, kw_only=True):
    """The number of experts per token, for all layers or layer by layer, and the layers that are skipped."""

    name: str
    top_k_experts: int | tuple[int, ...] | None  # null: as the model was trained
    top_p_experts: float | None  # null: all of them
    skip_layers: tuple[int, ...]
    sparsity: Sparsity
    active_parameters: int
