"""`prune --join-experts`: the dense checkpoint that a split one was made from."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from sparsedial.errors import UserError
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.twin import copy_beside
from sparsedial.model.writing import write_model
from sparsedial.pruning.folder import require_free
from sparsedial.pruning.joining import joined, weights_digest
from sparsedial.pruning.split_sizes import joined_shape
from sparsedial.records.record import read
from sparsedial.records.split import SPLIT_FILE, JoinedExperts, SplitOrigin
from sparsedial.shape.shape import Shape
from sparsedial.store import whole_folder, write_atomically
from sparsedial.verbs.checkpoint_names import name_of
from sparsedial.verbs.origin import require_checkpoint
from sparsedial.verbs.prune.answer import written_folder


def join_experts(checkpoint: Path, out: Path) -> JoinedExperts:
    """Put the neurons of a split checkpoint back in their places, and write it as it was before.

    Raises: UserError for a damaged checkpoint, one that was not split or has lost experts or layers since, or a folder
    that is not free.
    """
    began = time.perf_counter()
    require_checkpoint(checkpoint)
    require_free(out, checkpoint)
    if not (checkpoint / SPLIT_FILE).exists():
        raise UserError(
            f"{checkpoint} was not split: it has no {SPLIT_FILE}",
            hint="name a checkpoint that <split_experts> wrote, or one that was trained from it",
            field="join_experts",
        )
    split, origin = read_checkpoint(checkpoint, torch.bfloat16), read(checkpoint / SPLIT_FILE, SplitOrigin)
    shape = _dense_shape(checkpoint, split.shape, origin)
    tensors = list(joined(split.tensors, origin.neurons))
    with whole_folder(out.resolve()) as partial:
        write_model(partial, json.loads(origin.config), shape, tensors)
        write_atomically(partial / "config.json", origin.config.encode())
        copy_beside(partial, checkpoint, without=(SPLIT_FILE,))
        return JoinedExperts(
            checkpoint=name_of(checkpoint),
            out=written_folder(partial, out),
            original=origin.original,
            same_weights=weights_digest(tensors) == origin.weights_digest,
            weight_bytes=sum(tensor.nbytes for tensor in tensors),
            wall_seconds=time.perf_counter() - began,
        )


def _dense_shape(checkpoint: Path, shape: Shape, origin: SplitOrigin) -> Shape:
    """The shape of the dense model, if its layers are as wide as those that were split."""
    widths = [len(places) for places in origin.neurons]
    if shape.gate == "ones" and shape.experts:
        dense = joined_shape(shape)
        if [dense.layer(layer).d_ff for layer in range(dense.layers)] == widths:
            return dense
    raise UserError(
        f"{checkpoint} is not what was split: its layers or experts were turned off since",
        hint=f"join the checkpoint that was split from {origin.original.path}",
        field="join_experts",
    )
