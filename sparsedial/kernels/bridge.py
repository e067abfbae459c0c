"""The bridge to C: the functions and structs of a header as Python functions that take the header's names.

Every argument is a keyword, so a missing, surplus or misspelt one is an error at the call. A tensor is passed as a
tensor, several (`float *const *`) as a list, the null pointer as None, structs as their own functions give them.
Types and layout of tensors are not checked here; callers ask `native.usable` first.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from torch import Tensor

SCALARS: dict[str, Any] = {
    "void": None,
    "long": ctypes.c_long,
    "int64_t": ctypes.c_int64,
    "int": ctypes.c_int,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
}
COMMENT = re.compile(r"/\*.*?\*/", re.S)
NO_MEMORY = -2  # as common.h has it
STRUCT = re.compile(r"^struct (\w+) \{([^}]*)\};", re.M)
FUNCTION = re.compile(r"^(\w+) (\w+)\(([^)]*)\);", re.M)


@dataclass(frozen=True)
class Declared:
    """A field of a struct, or an argument of a function."""

    name: str
    type: str  # without `const` and `struct`
    stars: int


@dataclass(frozen=True)
class Function:
    """What a function takes and gives."""

    result: str
    arguments: tuple[Declared, ...]


@dataclass(frozen=True)
class Header:
    """What a header declares, by name."""

    structs: dict[str, tuple[Declared, ...]]
    functions: dict[str, Function]


def read_header(text: str) -> Header:
    """The structs and functions that a header declares."""
    text = COMMENT.sub("", text)
    return Header(
        structs={name: tuple(_declared(fields.split(";"))) for name, fields in STRUCT.findall(text)},
        functions={
            name: Function(result, tuple(_declared(arguments.split(","))))
            for result, name, arguments in FUNCTION.findall(text)
        },
    )


def _declared(declarations: Sequence[str]) -> Iterator[Declared]:
    """Each name of declarations like `const float *x, *y`; `void` alone has none."""
    for declaration in declarations:
        kind, _, names = re.sub(r"\b(const|struct)\b", "", declaration).strip().partition(" ")
        for name in names.split(",") if names else ():
            yield Declared(re.sub(r"[*\s]", "", name), kind, name.count("*"))


def bind(library: Any, header: Header) -> SimpleNamespace:
    """The header's functions in a library, and for each struct a function that makes one, under their names."""
    bound, structs = SimpleNamespace(), {}
    for name, fields in header.structs.items():
        layout = [(field.name, _ctype(field, structs)) for field in fields]
        structs[name] = type(name, (ctypes.Structure,), {"_fields_": layout})
        setattr(bound, name, _by_keyword(name, fields, structs[name]))
    for name, declared in header.functions.items():
        function = getattr(library, name)
        function.restype = SCALARS[declared.result]
        function.argtypes = [_ctype(argument, structs) for argument in declared.arguments]
        setattr(bound, name, _by_keyword(name, declared.arguments, function, declared.result))
    return bound


def _ctype(declared: Declared, structs: dict[str, Any]) -> Any:
    if declared.stars:
        return ctypes.POINTER(structs[declared.type]) if declared.type in structs else ctypes.c_void_p
    return SCALARS[declared.type]


def _by_keyword(
    name: str, arguments: Sequence[Declared], target: Callable[..., Any], result: str = ""
) -> Callable[..., Any]:
    """A function of these keywords that calls `target` with their values in order; one that gives an int is checked.

    Made from text, as `dataclasses` makes `__init__`: such a call takes no longer than one by position.
    """
    keywords = ", ".join(["*", *(argument.name for argument in arguments)]) if arguments else ""
    values = ", ".join(map(_value, arguments))
    made: dict[str, Any] = {"_target": target, "_addresses": addresses, "_checked": _checked}
    call = f"_target({values})"
    body = f"return {call}" if result != "int" else f"status = {call}\n    return _checked(status) if status else 0"
    exec(f"def {name}({keywords}):\n    {body}", made)
    return made[name]


def _checked(status: int) -> int:
    if status == NO_MEMORY:
        raise MemoryError("a compiled kernel could not have its scratch")
    return status


def _value(argument: Declared) -> str:
    """The text of an argument in the call."""
    name = argument.name
    if argument.stars == 2:
        return f"_addresses({name})"
    if argument.stars == 1 and argument.type in SCALARS:
        return f"None if {name} is None else {name}.data_ptr()"
    return name


def addresses(tensors: Sequence[Tensor]) -> Any:
    """The addresses of the tensors' values, as an array in C."""
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


def array(structs: Sequence[Any]) -> Any:
    """Structs of one kind, as an array in C."""
    kind: Any = type(structs[0])
    return (kind * len(structs))(*structs)
