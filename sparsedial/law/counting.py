"""How laws count a model's size: with or without its embedding tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast, get_args

from sparsedial.records.law import Counting
from sparsedial.shape.counts import active_parameters, total_parameters

COUNTS = {"total_parameters": total_parameters, "active_parameters": active_parameters}
COUNTINGS: tuple[str, ...] = get_args(Counting)
BARE = re.compile(r"(non|no|not|without|w/?o|excl\w*|minus|sans)[ _\-./]*(the[ _])?emb", re.IGNORECASE)


def table_parameters(shape: Any) -> Any:
    """Parameters of the stored embedding tables; tied ones count once."""
    return shape.vocab_size * shape.d_model * (1 if shape.tied_embeddings else 2)


def embedding_share(shape: Any) -> Any:
    """The share of the embedding tables in a model's parameters."""
    return table_parameters(shape) / total_parameters(shape)


def size_of(shape: Any, name: str, counting: Counting) -> Any:
    """`total_parameters` or `active_parameters` of a Shape, or of Shapes as columns, by a law's convention."""
    stored = COUNTS[name](shape)
    if counting == "without-embeddings":
        return stored - table_parameters(shape)
    if counting == "both-embeddings":
        return 2 * shape.vocab_size * shape.d_model + stored - table_parameters(shape)
    return stored


def counted_as(wanted: str | None, columns: Mapping[str, str]) -> Counting | None:
    """The convention that was asked for, or that the names of a table's columns of sizes tell; None where none does.

    `columns` maps our names to the table's, like `non_embedding_params`.
    """
    if wanted is not None:
        return cast("Counting", wanted)
    return "without-embeddings" if any(BARE.search(columns.get(name, "")) for name in COUNTS) else None
