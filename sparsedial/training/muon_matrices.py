"""Which weights Muon moves, and the matrices that lie side by side in one of them."""

from __future__ import annotations

from torch import Tensor

from sparsedial.records.recipe import Recipe
from sparsedial.shape.shape import Shape

EMBEDDINGS = ("embedding_VD", "unembedding_VD")
NOT_FOR_MUON = (*EMBEDDINGS, "w_router_DE", "w_shared_gate_D1")


def by_muon(name: str, parameter: Tensor, recipe: Recipe) -> bool:
    """Whether Muon moves a weight by this recipe, and not AdamW."""
    return recipe.optimizer == "muon" and parameter.dim() >= 2 and name.rpartition(".")[2] not in NOT_FOR_MUON


def widths_of(name: str, parameter: Tensor, shape: Shape) -> tuple[int, ...]:
    """Columns of the matrices that lie side by side in a parameter."""
    leaf, columns = name.rpartition(".")[2], parameter.shape[-1]
    if leaf == "w_qkv_DQ":
        return tuple(count * shape.head_dim for count in (shape.heads, shape.kv_heads, shape.kv_heads))
    if leaf in ("w_in_DH", "w_in_EDH"):
        return columns // 2, columns // 2
    return (columns,)
