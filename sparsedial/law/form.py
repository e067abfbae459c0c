"""A Form: a scaling law before it has coefficients, and how it counts a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsedial.law.counting import COUNTS, size_of
from sparsedial.records.law import Counting

Columns = Mapping[str, np.ndarray]
Terms = Callable[[np.ndarray, Columns], list[Any]]
Counted = Callable[[Any], Any]  # of a Shape, or of Shapes as columns

# How a law reads a variable off a model, sizes apart, unless the form says otherwise.
COUNTED: dict[str, Counted] = {
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
    counting: Counting = "with-embeddings"  # of sizes, where a law does not say otherwise
    governs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by axis: the coefficients that decide on it
    keeps_within: tuple[str, ...] = ()  # axes on which it says nothing beyond its runs
    unsaid_ratio: float = 1.0  # experts/top_k of its runs where neither the form nor the table tells

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

    def count(self, shape: Any, counting: Counting | None = None) -> dict[str, Any]:
        """The form's variables of a Shape, or of Shapes as columns, without tokens; sizes by a law's own convention."""
        rules = {**COUNTED, **self.counted}
        return {
            name: size_of(shape, name, counting or self.counting) if name in COUNTS else rules[name](shape)
            for name in self.variables
            if name != "tokens"
        }

    @property
    def size(self) -> str:
        """The size whose tokens per parameter count: the active parameters, where it knows them."""
        return "active_parameters" if "active_parameters" in self.variables else "total_parameters"

    @property
    def knows_sparsity(self) -> bool:
        """Whether sparsity is in its formula: as such, as a number of experts, or as active beside total size."""
        return bool({"sparsity", "experts"} & set(self.variables)) or set(COUNTS) <= set(self.variables)
