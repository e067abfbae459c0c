"""`count`: parameters, FLOPs and bytes of a shape, a `config.json` or a published model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sparsedial.shape.counts import count as count_shape
from sparsedial.shape.published import find_shape


@dataclass(frozen=True, kw_only=True)
class CountSettings:
    """What is counted, and at which context and precision."""

    shape: str = field(
        metadata={
            "positional": True,
            "help": "a config.json, a shape.json, or a published name",
            "example": "like `sparsedial count deepseek-v3`, or the path of a config.json",
        }
    )
    context: int | None = field(
        default=None, metadata={"metavar": "N", "help": "tokens of attention [the model's own, at most 4096]"}
    )
    dtype: str = field(default="bfloat16", metadata={"metavar": "D", "help": "of weights and cache"})
    with_mtp: bool = field(default=False, metadata={"help": "count multi-token-prediction modules too"})


def count(settings: CountSettings) -> dict[str, Any]:
    """Parameters, FLOPs per token at a context, bytes of weights and cache, and the three notions of sparsity.

    Raises: UserError for an unknown name, another family, an unknown dtype, or a context outside the model's.
    """
    name, shape = find_shape(settings.shape)
    counts = count_shape(shape, settings.context, settings.dtype, settings.with_mtp)
    return {"name": name, **counts.record()}
