"""What crosses to C crosses by name: the header says which names there are, and every call gives them."""

from __future__ import annotations

import ast
import ctypes
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import sparsedial
from sparsedial.errors import UserError
from sparsedial.kernels import native
from sparsedial.kernels.bridge import Declared, addresses, array, bind, read_header

HEADER = read_header(native.HEADER.read_text())
WRITTEN = """
/* A comment; with long ignored(long x); in it. */
struct pair {
    int64_t first, second; /* two */
    const float *rows, *columns;
};

double add(const struct pair *pairs, const float *const *tensors, const int64_t *ids, long count, float scale,
           int threads);
int nothing(void);
"""


class Recorder:
    """A library whose functions tell what they were called with."""

    def __init__(self) -> None:
        self.called: list[tuple[object, ...]] = []

    def __getattr__(self, name: str):
        def function(*given: object) -> int:
            self.called.append((name, *given))
            return 7

        return function


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a kernel or of a struct's maker in the package, with its name."""
    for file in Path(sparsedial.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("native.module."):
                yield ast.unparse(node.func).removeprefix("native.module."), node


def names_of(name: str) -> set[str]:
    declared = HEADER.structs[name] if name in HEADER.structs else HEADER.functions[name].arguments
    return {argument.name for argument in declared}


def test_a_header_is_read_as_it_is_written():
    header = read_header(WRITTEN)
    assert header.structs == {
        "pair": (
            Declared("first", "int64_t", 0),
            Declared("second", "int64_t", 0),
            Declared("rows", "float", 1),
            Declared("columns", "float", 1),
        )
    }
    assert [(argument.name, argument.type, argument.stars) for argument in header.functions["add"].arguments] == [
        ("pairs", "pair", 1),
        ("tensors", "float", 2),
        ("ids", "int64_t", 1),
        ("count", "long", 0),
        ("scale", "float", 0),
        ("threads", "int", 0),
    ]
    assert header.functions["nothing"].arguments == ()
    assert header.functions.keys() == {"add", "nothing"}


def test_values_cross_in_the_headers_order_whatever_theirs():
    library = Recorder()
    bound = bind(library, read_header(WRITTEN))
    rows, ids = torch.zeros(3), torch.zeros(2, dtype=torch.long)
    pair = bound.pair(columns=None, rows=rows, second=2, first=1)
    assert (pair.first, pair.second, pair.rows, pair.columns) == (1, 2, rows.data_ptr(), None)
    pairs = array([pair, pair])
    assert bound.add(threads=1, scale=0.5, count=2, ids=ids, tensors=[rows, rows], pairs=pairs) == 7
    name, given, tensors, *rest = library.called[0]
    assert (name, given, list(tensors)) == ("add", pairs, [rows.data_ptr()] * 2)
    assert rest == [ids.data_ptr(), 2, 0.5, 1]
    assert bound.nothing() == 7


@pytest.mark.parametrize("change", ["missing", "surplus", "misspelt", "by position"])
def test_a_call_that_does_not_give_the_headers_names_is_an_error(change):
    bound = bind(Recorder(), read_header(WRITTEN))
    given = {"pairs": None, "tensors": [], "ids": None, "count": 1, "scale": 1.0, "threads": 1}
    changed = {
        "missing": given | {},
        "surplus": {**given, "more": 1},
        "misspelt": {**given, "thread": 1},
        "by position": {},
    }
    del changed["missing"]["count"], changed["misspelt"]["threads"]
    by_position = given.values() if change == "by position" else ()
    with pytest.raises(TypeError):
        bound.add(*by_position, **changed[change])
    with pytest.raises(TypeError, match="columns"):
        bound.pair(first=1, second=2, rows=None)


def test_every_call_in_the_package_gives_the_headers_names():
    """All of them where none are unpacked; the functions themselves refuse the rest when they are called."""
    for name, call in calls():
        given = {keyword.arg for keyword in call.keywords}
        assert not call.args, f"{name}: by position"
        assert given - {None} <= names_of(name), f"{name}: {given - names_of(name)}"
        if None not in given:
            assert given == names_of(name), f"{name}: {names_of(name) - given}"


def test_everything_in_the_header_is_called():
    used = {name for name, _ in calls()} | {"header_checksum"}
    assert used == HEADER.functions.keys() | HEADER.structs.keys()


def test_a_library_of_another_header_is_refused(monkeypatch):
    for library in (SimpleNamespace(header_checksum=lambda: 1), SimpleNamespace()):
        monkeypatch.setattr(ctypes, "CDLL", lambda _, library=library: library)
        monkeypatch.setenv("SPARSEDIAL_NATIVE", "any.so")
        with pytest.raises(UserError, match=r"any\.so was built from another kernels\.h"):
            native._load()


def test_a_named_library_that_is_missing_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSEDIAL_NATIVE", str(tmp_path / "none.so"))
    with pytest.raises(UserError, match=r"none\.so cannot be loaded"):
        native._load()


def test_addresses_are_those_of_the_tensors():
    tensors = [torch.zeros(2), torch.ones(3)[1:]]
    assert list(addresses(tensors)) == [tensor.data_ptr() for tensor in tensors]
