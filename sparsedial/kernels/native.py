"""The compiled kernels, where this install has them: plain C, called by address; `csrc/kernels.h` lists them."""

from __future__ import annotations

import ctypes
import importlib.machinery
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).parent
TYPES: dict[str, Any] = {
    "void": None,
    "long": ctypes.c_long,
    "int": ctypes.c_int,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
}
FUNCTION = re.compile(r"^(\w+) (\w+)\(([^)]*)\);", re.M)


def _load() -> Any:
    """The library with every function's types as the header declares them, or None where it was not built.

    It has no OpenMP of its own: PyTorch's, loaded with PyTorch, serves both, so their threads do not fight for cores.
    """
    built = [HERE / f"_native{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    found = next((path for path in built if path.exists()), None)
    if found is None:
        return None
    try:
        library = ctypes.CDLL(str(found))
    except OSError:  # built for another machine
        return None
    for result, name, arguments in FUNCTION.findall((HERE / "csrc" / "kernels.h").read_text()):
        function = getattr(library, name)
        function.restype = TYPES[result]
        function.argtypes = [
            ctypes.c_void_p if "*" in argument else TYPES[argument.split()[0]] for argument in arguments.split(",")
        ]
    return library


module: Any = _load()


def kind(device: str) -> str:
    """Which kernels runs on a device use: "compiled" or "torch"; the two round differently."""
    return "compiled" if module is not None and device == "cpu" else "torch"


def usable(*tensors: Tensor) -> bool:
    """Whether the compiled kernels are here and take these tensors as they lie in memory."""
    return takes(*tensors) and all(tensor.is_contiguous() for tensor in tensors)


def takes(*tensors: Tensor) -> bool:
    """Whether the compiled kernels are here and take these tensors once they are contiguous."""
    return (
        module is not None
        and not torch.is_autocast_enabled("cpu")
        and all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in tensors)
    )


def addresses(*tensors: Tensor | None) -> list[int | None]:
    """Where the values of tensors lie; None, a null pointer, for one that is not there."""
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]
