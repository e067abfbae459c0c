"""Loading a model from a checkpoint folder and saving one; a folder is a stream of tensors (docs/checkpoints.md)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.kernels import native
from sparsedial.kernels.transposed import copy_values
from sparsedial.model.narrow import narrow, stored_in_bfloat16
from sparsedial.model.pages import put_in_large_pages
from sparsedial.model.reading import Checkpoint, read_checkpoint
from sparsedial.model.shards import SHARD_BYTES
from sparsedial.model.stored import TYPES
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import Transformer
from sparsedial.model.weights import stream_of, views_of
from sparsedial.model.writing import write_checkpoint
from sparsedial.records.answers import WeightsDtype
from sparsedial.records.trained_for import TrainedFor
from sparsedial.shape.shape import Shape
from sparsedial.text.tokenizer import Tokenizer


def save_checkpoint(
    model: Transformer,
    folder: Path,
    tokenizer: Tokenizer | None = None,
    shard_bytes: float = SHARD_BYTES,
    trained_for: TrainedFor | None = None,
) -> None:
    """Write a folder from a model, as `write_checkpoint` does from its tensors.

    Raises: UserError where the folder cannot be written.
    """
    write_checkpoint(folder, model.shape, stream_of(model), tokenizer, shard_bytes, trained_for)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Transformer:
    """A model filled from a folder, ours or another's, one tensor at a time.

    Raises: UserError as `read_checkpoint`, for a type that weights cannot have, or values that are not finite in it.
    """
    if dtype not in TYPES.values() or dtype.itemsize == 1:
        raise UserError(
            f"model: {dtype} is not a floating-point type that the model computes with",
            hint="use torch.float32 or torch.bfloat16",
        )
    checkpoint = read_checkpoint(folder, dtype)
    return model_of(checkpoint.shape, checkpoint.tensors, dtype)


def load_as_stored(folder: Path, dtype: str | None = None) -> Transformer:
    """A model filled from a folder that computes in float32 and holds its matrices in float32 or in bfloat16.

    None: in bfloat16 where the folder has them so and compiled kernels multiply by them, else in float32.

    Raises: UserError as `load`.
    """
    checkpoint = read_checkpoint(folder)
    return model_as_stored(checkpoint, dtype or held_dtype(checkpoint))


def held_dtype(checkpoint: Checkpoint) -> WeightsDtype:
    """The type in which the matrices of a checkpoint are held unless another one is asked for."""
    as_stored = native.kind("cpu") == "compiled" and stored_in_bfloat16(checkpoint.tensors)
    return "bfloat16" if as_stored else "float32"


def model_as_stored(checkpoint: Checkpoint, dtype: str) -> Transformer:
    """A model that computes in float32 and holds its matrices in this type.

    Raises: UserError for values that are not finite in it.
    """
    model = empty_model(checkpoint.shape, torch.float32)
    return filled(narrow(model, values=False) if dtype == "bfloat16" else model, checkpoint.tensors)


def model_of(shape: Shape, tensors: Iterable[NamedTensor], dtype: torch.dtype = torch.float32) -> Transformer:
    """A model of a Shape, filled from a stream of all its tensors.

    Raises: UserError for values that are not finite in this type.
    """
    return filled(empty_model(shape, dtype), tensors)


def filled(model: Transformer, tensors: Iterable[NamedTensor]) -> Transformer:
    """A model, each of its weights set to the tensor of its name.

    Raises: UserError for values that are not finite in a weight's type.
    """
    put_in_large_pages(model)
    views = views_of(model)
    for tensor in tensors:
        fill(views[tensor.name], tensor)
    return model.eval()


def fill(view: Tensor, tensor: NamedTensor) -> None:
    """Set a view of a weight to the values of a tensor.

    Raises: UserError for values that are not finite in the view's type.
    """
    values = tensor.values()
    extremes = torch.stack(values.aminmax())  # NaN where any value is
    if not bool(extremes.to(view.dtype).isfinite().all()):
        raise UserError(f"{tensor.origin} holds values that are not finite in {view.dtype}")
    copy_values(view, values)


def empty_model(shape: Shape, dtype: torch.dtype) -> Transformer:
    """A model whose weights are not set yet.

    The routing bias is never narrower than float32, as in `transformers`. Released models have biases near 8, where
    bfloat16 would round away the differences that balance the experts.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = Transformer(shape)
    finally:
        torch.set_default_dtype(before)
    for layer in model.sparse_feed_forwards:
        if layer.bias_E is not None:
            layer.bias_E = layer.bias_E.to(torch.promote_types(dtype, torch.float32))
    return model
