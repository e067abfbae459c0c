"""The smaller checkpoint as a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sparsedial import store
from sparsedial.errors import UserError
from sparsedial.model.stream import NamedTensor
from sparsedial.model.twin import write_like
from sparsedial.pruning.kept import Kept
from sparsedial.records.trained_for import trained_for
from sparsedial.shape.config import load_config
from sparsedial.shape.shape import Shape


def require_outside(out: Path, checkpoint: Path) -> None:
    """Refuse a folder that lies in the checkpoint.

    Raises: UserError.
    """
    if checkpoint.resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(f"{out} lies in the checkpoint, which stays as it is", hint="name another folder", field="out")


def require_free(out: Path, checkpoint: Path) -> None:
    """Refuse a folder that holds something, or lies in the checkpoint.

    Raises: UserError.
    """
    require_outside(out, checkpoint)
    store.require_free(out)


def write_pruned(folder: Path, original: Path, shape: Shape, tensors: Iterable[NamedTensor], kept: Kept) -> None:
    """Write what stays of a checkpoint into a folder, trained for what its original was trained for.

    `shape` and `tensors` are those of the original.

    Raises: OSError where they cannot be written.
    """
    smaller, layers = kept.shape(shape), kept.parts(shape).layers
    write_like(folder, original, smaller, kept.stream(tensors), trained_for(load_config(original)), layers)
