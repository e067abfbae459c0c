"""The compiled kernels, if they are installed: plain C, called by name; `csrc/kernels.h` lists them."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.machinery
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.kernels.bridge import bind, read_header
from sparsedial.kernels.watched import watched

HERE = Path(__file__).parent
HEADER = HERE / "csrc" / "kernels.h"


def library_file() -> Path | None:
    """The file of the library that SPARSEDIAL_NATIVE names, or else of the installed one; None where there is none."""
    named = os.environ.get("SPARSEDIAL_NATIVE")
    built = [HERE / f"_native{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    return Path(named) if named else next((path for path in built if path.exists()), None)


def _load() -> Any:
    """The kernels of the library that SPARSEDIAL_NATIVE names, or else of the installed one; None where there is none.

    The library has no OpenMP of its own. It uses PyTorch's, so that the threads of both do not compete for cores.

    Raises: UserError for a library that was built from another header, or a named one that cannot be loaded.
    """
    named, found = os.environ.get("SPARSEDIAL_NATIVE"), library_file()
    if found is None:
        return None
    try:
        library = ctypes.CDLL(str(found))
    except OSError as error:
        if named:
            raise UserError(f"kernels: SPARSEDIAL_NATIVE={named} cannot be loaded ({error})") from error
        return None  # built for another machine
    header = HEADER.read_bytes()
    if _checksum(library) != zlib.crc32(header):
        raise UserError(f"kernels: {found} was built from another {HEADER.name}", hint="install the package again")
    return bind(library, read_header(header.decode()))


def _checksum(library: Any) -> int | None:
    """The checksum of the header that a library was built from; None for a library without one."""
    checksum = getattr(library, "header_checksum", None)
    return None if checksum is None else checksum() & 0xFFFFFFFF


module: Any = _load()
_aside = False


def kind(device: str) -> str:
    """The kernels that runs on a device use: "compiled" or "torch"; the two round differently."""
    return "compiled" if module is not None and device == "cpu" else "torch"


@contextlib.contextmanager
def set_aside() -> Iterator[None]:
    """Within it no compiled kernel multiplies by weights: PyTorch's own operations do, and can be watched.

    Attention itself, which has no weights, stays compiled: PyTorch's holds the scores of all pairs of positions.
    """
    global _aside
    before, _aside = _aside, True
    try:
        yield
    finally:
        _aside = before


def usable(*tensors: Tensor) -> bool:
    """Whether the compiled kernels are installed and take these tensors as they lie in memory."""
    return not _aside and takes(*tensors) and all(tensor.is_contiguous() for tensor in tensors)


def takes(*tensors: Tensor) -> bool:
    """Whether the compiled kernels are installed and take these tensors once they are contiguous.

    They take none where PyTorch follows the computation: it would not see what they do.
    """
    return computes(*tensors) and not (tensors and watched(tensors[0]))


def computes(*tensors: Tensor) -> bool:
    """Whether they would take these tensors inside an operation, whoever follows it."""
    return (
        module is not None
        and not torch.is_autocast_enabled("cpu")
        and all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in tensors)
    )
