"""Shapes: many models as columns, so that tens of thousands are counted at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ParamSpec, TypeVar

import numpy as np

from sparsedial.shape.shape import ROUTED, Layer, Shape

SIZES = ("layers", "d_model", "heads", "kv_heads", "head_dim", "d_ff", "experts", "top_k", "shared_experts", "d_expert")

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Models that differ only in their sizes: `columns` holds arrays [n], `common` what all share.

    Read like a Shape (`shapes.d_model`), so whatever counts one by arithmetic counts all.
    """

    columns: Mapping[str, np.ndarray]
    common: Mapping[str, Any] = field(default_factory=dict)
    counted: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)  # by `counted_once`

    @staticmethod
    def of(shapes: Sequence[Shape]) -> Shapes:
        """Shapes as columns; the fields that they share are those of the sparsest."""
        if any(shape.own_layers for shape in shapes):
            raise ValueError("shapes with own_layers cannot be columns")
        sparsest = max(shapes, key=lambda shape: shape.experts)
        return Shapes(
            columns={name: np.array([getattr(shape, name) for shape in shapes], dtype=np.int64) for name in SIZES},
            common={name: value for name, value in asdict(sparsest).items() if name not in SIZES},
        )

    def __len__(self) -> int:
        return len(self.columns["d_model"])

    def __getattr__(self, name: str) -> Any:
        if name in SIZES:
            return self.columns[name]
        if name in self.common:
            return self.common[name]
        default = Shape.__dataclass_fields__.get(name)
        if default is None:
            raise AttributeError(f"no such size: {name}")
        return default.default

    def __getitem__(self, index: int) -> Shape:
        return Shape(**{name: int(values[index]) for name, values in self.columns.items()}, **self._common(index))

    def _common(self, index: int) -> dict[str, Any]:
        """The shared fields of one model; a dense one has none of the routed fields."""
        if self.columns["experts"][index]:
            return dict(self.common)
        return {name: value for name, value in self.common.items() if name not in ROUTED}

    def pick(self, selected: np.ndarray) -> Shapes:
        """Some of them, by mask or indices."""
        return Shapes(columns={name: values[selected] for name, values in self.columns.items()}, common=self.common)

    @functools.cached_property
    def sparse_layers(self) -> np.ndarray:
        """Layers whose feed-forward part is routed."""
        return np.where(self.experts > 0, self.layers - self.dense_layers - len(self.dense_places), 0)

    @functools.cached_property
    def kinds(self) -> tuple[tuple[Layer, np.ndarray], ...]:
        """The routed and the dense feed-forward part, as columns, and how many layers have each."""
        sparse = Layer(experts=self.experts, top_k=self.top_k, d_expert=self.d_expert)
        return (sparse, self.sparse_layers), (Layer(d_ff=self.d_ff), self.layers - self.sparse_layers)

    @property
    def all_experts(self) -> np.ndarray:
        """Routed experts of all layers together."""
        return self.sparse_layers * self.experts

    @property
    def all_choices(self) -> np.ndarray:
        """Routed experts that one token visits in all layers together."""
        return self.sparse_layers * self.top_k

    @property
    def latent_attention(self) -> bool:
        """Whether keys and values are compressed."""
        return self.kv_lora_rank > 0

    @functools.cached_property
    def experts_per_choice(self) -> np.ndarray:
        """experts/top_k; 1 for dense."""
        return np.where(self.experts > 0, self.experts / np.maximum(self.top_k, 1), 1.0)

    @functools.cached_property
    def sparsity(self) -> np.ndarray:
        """Expert sparsity 1 - top_k/experts; 0 for dense."""
        return 1 - 1 / self.experts_per_choice

    @property
    def activation_ratio(self) -> np.ndarray:
        """(top_k + shared) / (experts + shared); 1 for dense."""
        held = self.experts + self.shared_experts
        return np.where(self.experts > 0, (self.top_k + self.shared_experts) / np.maximum(held, 1), 1.0)


def counted_once(count: Callable[P, T]) -> Callable[P, T]:
    """A count that is made once for the same Shapes: they never change, and budget after budget asks for it.

    Its columns are read-only, since all who ask share them. A single Shape is counted each time.
    """

    @functools.wraps(count)
    def remembered(*given: P.args, **named: P.kwargs) -> T:
        shapes = given[0]
        if not isinstance(shapes, Shapes):
            return count(*given, **named)
        key = (count, given[1:], tuple(sorted(named.items())))
        if key not in shapes.counted:
            made = shapes.counted[key] = count(*given, **named)
            if isinstance(made, np.ndarray):
                made.flags.writeable = False
        return shapes.counted[key]

    return remembered
