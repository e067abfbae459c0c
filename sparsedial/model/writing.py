"""A checkpoint folder written from a Shape and a stream of its tensors, without a built model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sparsedial.model.digests import write_digests
from sparsedial.model.layouts import as_written
from sparsedial.model.shards import SHARD_BYTES, write_weights
from sparsedial.model.stream import NamedTensor
from sparsedial.records.trained_for import TrainedFor, with_trained_for
from sparsedial.shape.config import copied_names, fitting_family, own_config, tensor_rules, write_config
from sparsedial.shape.hugging_face.values import Config, Fields
from sparsedial.shape.rules import Written, written_tensors
from sparsedial.shape.shape import Shape
from sparsedial.shape.tensors import Name, tensor_sizes
from sparsedial.store import whole_folder, write_atomically
from sparsedial.text.tokenizer import Tokenizer
from sparsedial.units import dtype_name


def write_checkpoint(
    folder: Path,
    shape: Shape,
    tensors: Iterable[NamedTensor],
    tokenizer: Tokenizer | None = None,
    shard_bytes: float = SHARD_BYTES,
    trained_for: TrainedFor | None = None,
) -> None:
    """Write a folder that `transformers` loads as it is: configuration, weights, tokenizer, digests.

    Values are fetched one by one, in the order of the stream. The folder appears under its name only when it is whole.
    For a shape that no published family fits, the folder is one that only Sparsedial reads; others refuse its model
    type. The configuration says which dial the model was trained for.

    Raises: UserError where the folder cannot be written, ValueError for a stream of another shape's tensors.
    """
    stream = _by_name(tensors, shape)
    dtype = dtype_name(stream[Name("embedding")].dtype)
    end_token = tokenizer.end_token if tokenizer else None
    config = (write_config if fitting_family(shape) else own_config)(shape, dtype=dtype, end_token=end_token)
    with whole_folder(folder) as partial:
        write_model(partial, with_trained_for(config, trained_for), shape, stream.values(), shard_bytes)
        if tokenizer is not None:
            tokenizer.save(partial)
        write_digests(partial)


def write_model(
    folder: Path, config: Fields, shape: Shape, tensors: Iterable[NamedTensor], shard_bytes: float = SHARD_BYTES
) -> None:
    """Write a configuration and the weights of its Shape into a folder, under the names of the configuration's family.

    Raises: OSError where they cannot be written, ValueError for a stream of another shape's tensors.
    """
    stream = _by_name(tensors, shape)
    written = written_tensors(tensor_rules(Config(config), shape), shape)
    in_files = {written[name].theirs: _laid_out(stream[name], written[name], shape) for name in tensor_sizes(shape)}
    copies = {copy: in_files[name] for copy, name in copied_names(Config(config), shape).items()}
    write_atomically(folder / "config.json", (json.dumps(config, indent=1) + "\n").encode())
    order = [*(written[name].theirs for name in stream), *copies]
    write_weights(in_files | copies, order, folder, shard_bytes)


def _by_name(tensors: Iterable[NamedTensor], shape: Shape) -> dict[Name, NamedTensor]:
    """The tensors of a stream by name, in its order.

    Raises: ValueError where they are not those of the Shape.
    """
    given, wanted = list(tensors), tensor_sizes(shape)
    stream = {tensor.name: tensor for tensor in given}
    sizes = {name: tensor.size for name, tensor in stream.items()}
    different = [str(name) for name in {**wanted, **sizes} if sizes.get(name) != wanted.get(name)]
    if different or len(given) != len(wanted):
        raise ValueError(f"the stream is not of this shape: {', '.join(different[:5]) or 'a tensor comes twice'}")
    return stream


def _laid_out(tensor: NamedTensor, written: Written, shape: Shape) -> NamedTensor:
    """A tensor as files hold it."""
    return tensor.mapped(lambda values: as_written(values, written.layout, tensor.name, shape))
