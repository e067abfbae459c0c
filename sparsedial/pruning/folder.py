"""The smaller checkpoint as a folder: weights, configuration, and what else its original holds of use."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.model.digests import SUMMARY, write_digests
from sparsedial.model.stream import NamedTensor
from sparsedial.model.writing import write_model
from sparsedial.records.prune import PRUNE_FILE
from sparsedial.shape.config import changed_config, load_config
from sparsedial.shape.hugging_face.files import INDEX
from sparsedial.shape.shape import Shape

SUFFIXES = (".json", ".jinja", ".model", ".txt", ".tiktoken")  # of tokenizers, chat templates, generation settings
NAMES = ("LICENSE", "NOTICE")
OWN = ("config.json", INDEX, SUMMARY, PRUNE_FILE)  # files of the original that are not its smaller twin's
QUANTISED = "quantization_config"  # weights in 8-bit blocks are brought back before they are written


def require_free(out: Path, checkpoint: Path) -> None:
    """Refuse a folder that holds something, or lies in the checkpoint.

    Raises: UserError.
    """
    if checkpoint.resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(f"{out} lies in the checkpoint, which stays as it is", hint="name another folder", field="out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        held = "holds files" if out.is_dir() else "is a file"
        raise UserError(f"{out} {held}, and nothing is overwritten", hint="name a new folder", field="out")


def write_pruned(folder: Path, original: Path, shape: Shape, tensors: Iterable[NamedTensor]) -> None:
    """Write a checkpoint of this Shape into a folder, and beside it the tokenizer and settings of its original.

    Raises: OSError where they cannot be written.
    """
    config = load_config(original)
    values = {name: value for name, value in config.values.items() if name != QUANTISED}
    write_model(folder, changed_config(replace(config, values=values), shape), shape, tensors)
    for file in sorted(original.iterdir()):
        if file.is_file() and file.name not in OWN and (file.suffix in SUFFIXES or file.stem in NAMES):
            shutil.copyfile(file, folder / file.name)
    write_digests(folder)
