"""What safetensors files hold, from their headers alone: names, types, sizes, and where the bytes lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sparsedial.errors import UserError
from sparsedial.shape.tensors import Size

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PIECE_BYTES = 1 << 24  # compared at once


@dataclass(frozen=True)
class Entry:
    """One tensor of a file."""

    name: str
    file: Path
    start: int  # of its bytes in the file
    nbytes: int
    size: Size
    kind: str  # its type as the file names it


def entries_of(folder: Path) -> dict[str, Entry]:
    """Every tensor of a folder by its name; where several files hold one, the index decides.

    Raises: UserError where it does not, or there are no readable files.
    """
    holders: dict[str, list[Entry]] = {}
    for file in weight_files(folder):
        for name, entry in entries_in(file).items():
            holders.setdefault(name, []).append(entry)
    index = {} if not _has_index(folder) else _index(folder)
    return {name: _one_of(held, index.get(name)) for name, held in holders.items()}


def _one_of(held: list[Entry], indexed: str | None) -> Entry:
    """The only tensor of a name, or that in the file which the index names."""
    chosen = held if len(held) == 1 else [entry for entry in held if entry.file.name == indexed]
    if not chosen:
        files = " and ".join(str(entry.file) for entry in held)
        raise UserError(
            f"{held[0].name} is in {files}",
            hint=f"remove the file that does not belong there, or let {INDEX} name the right one",
        )
    return chosen[0]


def weight_files(folder: Path) -> list[Path]:
    """The files of weights: the one of the usual name, as `transformers` does, before those of the index.

    Raises: UserError where there is none, or the index is not readable or names a file that is not there.
    """
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if _has_index(folder):
        names = sorted(set(_index(folder).values()))
        missing = [name for name in names if Path(name).name != name or not (folder / name).exists()]
        if missing:
            raise UserError(f"{folder}: its index names {', '.join(missing[:3])}, which is not there")
        return [folder / name for name in names]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            f"{folder}: no safetensors file", hint="weights are read from safetensors only, never from pickles"
        )
    return files


def _has_index(folder: Path) -> bool:
    return (folder / INDEX).exists() and not (folder / WEIGHTS).exists()


def _index(folder: Path) -> dict[str, str]:
    """The file of each tensor, as the index says."""
    try:
        files = json.loads((folder / INDEX).read_text())["weight_map"]
        return {name: str(file) for name, file in files.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{folder / INDEX}: not readable as an index of weights ({error})") from error


def entries_in(file: Path) -> dict[str, Entry]:
    """Every tensor of a safetensors file by its name.

    Raises: UserError where it is not one.
    """
    try:
        with safe_open(file, "np"):
            pass  # its header fits the file
        with open(file, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(length))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: not readable as safetensors ({error})") from error
    header.pop("__metadata__", None)
    return {name: _entry(name, file, 8 + length, values) for name, values in header.items()}


def _entry(name: str, file: Path, first: int, values: Mapping[str, Any]) -> Entry:
    start, end = values["data_offsets"]
    return Entry(name, file, first + start, end - start, tuple(values["shape"]), values["dtype"])


def same_values(one: Entry, other: Entry) -> bool:
    """Whether two tensors are equal byte for byte; tensors of different types count as different."""
    if (one.kind, one.size) != (other.kind, other.size):
        return False
    try:
        with open(one.file, "rb") as first, open(other.file, "rb") as second:
            first.seek(one.start)
            second.seek(other.start)
            for at in range(0, one.nbytes, PIECE_BYTES):
                count = min(PIECE_BYTES, one.nbytes - at)
                if first.read(count) != second.read(count):
                    return False
    except OSError as error:
        raise UserError(f"{one.file}: not readable any more ({error.strerror or error})") from error
    return True
