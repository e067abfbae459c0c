"""A checkpoint made from another one: its weights are new, all else of use is its original's."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from sparsedial.model.digests import BESIDE, write_digests
from sparsedial.model.stream import NamedTensor
from sparsedial.model.writing import write_model
from sparsedial.records.trained_for import TrainedFor, with_trained_for
from sparsedial.shape.config import changed_config, load_config
from sparsedial.shape.hugging_face.files import INDEX
from sparsedial.shape.shape import Shape
from sparsedial.units import dtype_name

SUFFIXES = (".json", ".jinja", ".model", ".txt", ".tiktoken")  # of tokenizers, chat templates, generation settings
NAMES = ("LICENSE", "NOTICE")
OWN = ("config.json", INDEX, *BESIDE)  # files of the original that are not its twin's
QUANTISED = "quantization_config"  # weights in 8-bit blocks are brought back before they are written
DTYPES = ("torch_dtype", "dtype")


def write_like(
    folder: Path,
    original: Path,
    shape: Shape,
    tensors: Iterable[NamedTensor],
    trained_for: TrainedFor | None = None,
    layers: Sequence[int] | None = None,
) -> None:
    """Write a checkpoint of this Shape into a folder, and beside it the tokenizer and settings of its original.

    Its configuration states the type of its embedding, and the dial that it was trained for. `layers` are those of the
    original that it has; None: all.

    Raises: OSError where they cannot be written.
    """
    config, given = load_config(original), list(tensors)
    dtype = next(dtype_name(tensor.dtype) for tensor in given if tensor.name.part == "embedding")
    kept = {name: value for name, value in config.values.items() if name != QUANTISED}
    kept |= {name: dtype for name in DTYPES if name in kept}
    changed = changed_config(replace(config, values=kept), shape, layers)
    write_model(folder, with_trained_for(changed, trained_for), shape, given)
    copy_beside(folder, original)


def copy_beside(folder: Path, original: Path, without: Sequence[str] = ()) -> None:
    """Copy tokenizer, settings and licence of a checkpoint to another's weights, and write the digests of all files.

    Raises: OSError where they cannot be written.
    """
    for file in sorted(original.iterdir()):
        if file.is_file() and file.name not in (*OWN, *without) and (file.suffix in SUFFIXES or file.stem in NAMES):
            shutil.copyfile(file, folder / file.name)
    write_digests(folder)
