"""A Form: a scaling law before it has coefficients, and how it counts a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsedial.shape.counts import active_parameters, total_parameters

Columns = Mapping[str, np.ndarray]
Terms = Callable[[np.ndarray, Columns], list[Any]]
Counted = Callable[[Any], Any]  # of a Shape, or of Shapes as columns

# How a law reads a variable off a model, unless the form says otherwise. Sources: DESIGN's conventions of counting.
COUNTED: dict[str, Counted] = {
    "total_parameters": total_parameters,
    "active_parameters": active_parameters,
    "sparsity": lambda shape: shape.sparsity,
    "experts": lambda shape: shape.experts_per_choice,
}


@dataclass(frozen=True, kw_only=True)
class Form:
    """A law before it has coefficients.

    `terms` maps exponents and columns of n values to one array per scale; the loss is their weighted sum, or with
    `log10` ten to the power of that sum. Only scales in `signed` may be below 0. Exponents may also be given for many
    samples at once, each of shape [samples, 1]; terms are then [samples, n].
    """

    name: str
    says: str
    variables: tuple[str, ...]
    exponents: tuple[str, ...]
    bounds: tuple[tuple[float, float], ...]  # of the exponents
    starts: tuple[tuple[float, ...], ...]  # values to start each exponent from
    scales: tuple[str, ...]
    terms: Terms
    source: str
    signed: tuple[str, ...] = ()
    log10: bool = False
    counted: Mapping[str, Counted] = field(default_factory=dict)  # variables that this law counts in its own way

    @property
    def coefficients(self) -> tuple[str, ...]:
        """All names: scales, then exponents."""
        return self.scales + self.exponents

    def sum(self, values: np.ndarray, columns: Columns) -> np.ndarray:
        """The weighted sum of the terms: the loss, or its log10.

        Shapes: values [P] to [n], [samples, P] to [samples, n]
        """
        count = len(self.scales)
        parts = values if values.ndim == 1 else values.T[:, :, None]
        terms = self.terms(parts[count:], columns)
        return sum((scale * term for scale, term in zip(parts[:count], terms, strict=True)), np.zeros(1))

    def loss(self, values: np.ndarray, columns: Columns) -> np.ndarray:
        """Loss from coefficient values in the order of `coefficients`. Shapes: as `sum`"""
        total = self.sum(values, columns)
        return 10.0**total if self.log10 else total

    def design(self, exponents: np.ndarray, columns: Columns) -> np.ndarray:
        """The terms as the columns of a matrix. Shapes: [n, scales]"""
        return np.stack(np.broadcast_arrays(*self.terms(exponents, columns)), axis=1).astype(float)

    def count(self, shape: Any) -> dict[str, Any]:
        """The form's variables of a Shape, or of Shapes as columns, without tokens."""
        rules = {**COUNTED, **self.counted}
        return {name: rules[name](shape) for name in self.variables if name != "tokens"}
