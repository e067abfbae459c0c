"""One position of the dial on a checkpoint: the parts of the model that a request uses."""

from __future__ import annotations

from typing import ClassVar

from sparsedial.records.quantities import Sparsity
from sparsedial.records.record import Record
from sparsedial.shape.counts import active_parameters
from sparsedial.shape.shape import Shape
from sparsedial.shape.turned import Turned


class Setting(Record, frozen=True, kw_only=True):
    """The experts per token, for all layers or each of them, the share of dense layers' neurons, the skipped layers."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("neurons_share",)

    name: str
    top_k_experts: int | tuple[int, ...] | None  # one number, or one for each sparse layer; null: the model is dense
    top_p_experts: float | None  # null: all of them
    neurons_share: float | None = None  # of dense layers, per token, on average; null: all of them
    skip_layers: tuple[int, ...]
    sparsity: Sparsity
    active_parameters: int  # with a share of the experts' weight: at most; with one of the neurons: on average

    @staticmethod
    def of(turned: Turned, shape: Shape) -> Setting:
        """A setting of a checkpoint of this Shape.

        Raises: UserError for a setting that the checkpoint cannot have.
        """
        at, counts = turned.shape(shape), tuple(turned.counts(shape).values())
        of_kept = {at.layer(layer).top_k for layer in range(at.layers) if at.is_sparse(layer)}
        return Setting(
            name=turned.name(shape),
            top_k_experts=None if not counts else counts if len(of_kept) > 1 else next(iter(of_kept)),
            top_p_experts=at.top_p if at.top_p < 1 else None,
            skip_layers=tuple(sorted(set(turned.skip))),
            neurons_share=None if turned.neurons == 1 else turned.neurons,
            sparsity=Sparsity.of(at, turned.neurons),
            active_parameters=active_parameters(at, neurons=turned.neurons),
        )
