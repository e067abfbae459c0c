"""The compiled functions of `csrc/words.c`, where they are installed; without them NumPy does the same, slower."""

from __future__ import annotations

import ctypes
import importlib.machinery
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from sparsedial.errors import UserError

HERE = Path(__file__).parent
SOURCE = HERE / "csrc" / "words.c"


def _load() -> Any:
    """The library; None where there is none, or it was built for another machine.

    Raises: UserError for a library that was built from another source.
    """
    built = (HERE / f"_words{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES)
    found = next((path for path in built if path.exists()), None)
    if found is None:
        return None
    try:
        library = ctypes.CDLL(str(found))
    except OSError:
        return None
    if library.words_checksum() & 0xFFFFFFFF != zlib.crc32(SOURCE.read_bytes()):
        raise UserError(f"text: {found} was built from another {SOURCE.name}", hint="install the package again")
    data, long = ctypes.c_void_p, ctypes.c_long
    for name, arguments in {
        "squeeze": (ctypes.c_char_p, long, data),
        "hash_words": (ctypes.c_char_p, long, data, data),
        "hash_runs": (data, long, long),
        "count_shared": (data, long, data, long),
    }.items():
        getattr(library, name).argtypes = arguments
        getattr(library, name).restype = None if name == "hash_runs" else long
    return library


library: Any = _load()


def address(values: np.ndarray) -> int:
    """Where the values lie; they must be contiguous, and live until the call is over."""
    return values.ctypes.data
