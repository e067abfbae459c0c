"""`count`: parameters, FLOPs and bytes of a shape, a `config.json` or a published model."""

from __future__ import annotations

from dataclasses import dataclass

from sparsedial.errors import UserError
from sparsedial.records.answers import Counts
from sparsedial.records.quantities import Sparsity
from sparsedial.settings import setting
from sparsedial.shape.counts import (
    DTYPE_BYTES,
    active_parameters,
    cached_values_per_token,
    forward_flops_per_token,
    total_parameters,
    training_flops_per_token,
)
from sparsedial.shape.published import find_shape
from sparsedial.shape.shape import Shape

DEFAULT_CONTEXT = 4096


@dataclass(frozen=True, kw_only=True)
class CountSettings:
    """The model to count, the context and the data type."""

    shape: str = setting(
        help="a config.json, a shape.json, or a published name",
        positional=True,
        example="like `sparsedial count deepseek-v3`, or the path of a config.json",
    )
    context: int | None = setting(
        None, "context length for the FLOPs of attention [the model's own, at most 4096]", "N"
    )
    dtype: str = setting("bfloat16", "data type of weights and cache", "D")
    with_mtp: bool = setting(False, "include the multi-token prediction modules")


def count(settings: CountSettings) -> Counts:
    """Parameters, FLOPs per token at a context, bytes of weights and cache, and the three measures of sparsity.

    Raises: UserError for an unknown name, family or dtype, or a context outside the model's.
    """
    name, shape = find_shape(settings.shape)
    dtype, with_mtp = settings.dtype, settings.with_mtp
    if dtype not in DTYPE_BYTES:
        raise UserError(f"no dtype named '{dtype}'", hint=f"one of {', '.join(DTYPE_BYTES)}", field="dtype")
    context = _context(shape, settings.context)
    total = total_parameters(shape, with_mtp)
    active = active_parameters(shape, with_mtp)
    table = shape.vocab_size * shape.d_model
    return Counts(
        name=name,
        total_parameters=total,
        active_parameters=active,
        active_parameters_one_embedding=active - (0 if shape.tied_embeddings else table),
        active_parameters_no_embedding=active - table * (1 if shape.tied_embeddings else 2),
        sparsity=Sparsity.of(shape),
        forward_flops_per_token=forward_flops_per_token(shape, context, with_mtp),
        training_flops_per_token=training_flops_per_token(shape, context, with_mtp),
        context_tokens=context,
        dtype=dtype,
        weight_bytes=total * DTYPE_BYTES[dtype],
        kv_cache_bytes_per_token=cached_values_per_token(shape) * DTYPE_BYTES[dtype],
    )


def _context(shape: Shape, asked: int | None) -> int:
    context = min(shape.context, DEFAULT_CONTEXT) if asked is None else asked
    if not 1 <= context <= shape.context:
        raise UserError(f"{context} lies outside 1..{shape.context}, the positions of this model", field="context")
    return context
