"""The compiled functions on words give what NumPy's give."""

from __future__ import annotations

import random

import numpy as np
import pytest

from sparsedial.selection import words
from sparsedial.text import compiled, spaces

TEXTS = [
    b"",
    b"a",
    b" a",
    b"a  b\t\n c ",
    b"x" * 200,
    b" ".join([b"y" * size for size in range(1, 140)]),
    "été 文 ﬁne".encode() * 50,
    b"\n \t\v\f\r" * 200,
    bytes(random.Random(1).choices(b"ab \n", k=3000)),
]

pytestmark = pytest.mark.skipif(compiled.library is None, reason="the compiled functions are not installed")


@pytest.mark.parametrize("text", TEXTS)
def test_squeezed_text_is_the_words_one_space_apart(text):
    assert spaces._compiled(text) == spaces.squeezed_by_arrays(text) == b" ".join(text.split())


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("length", [1, 5, 50])
def test_hashes_are_those_of_arrays(text, length):
    plain = b" ".join(text.split())
    hashed = words.hashed_words(plain)
    assert np.array_equal(hashed, words.hashed_by_arrays(plain))
    assert len(hashed) == max(1, len(plain.split()))
    if len(hashed) >= length:
        assert np.array_equal(words.word_runs(hashed, length), words.runs_by_arrays(hashed, length))


def test_shared_runs_are_counted():
    draw = np.random.default_rng(0)
    for _ in range(50):
        one, other = (np.unique(draw.integers(0, 60, draw.integers(0, 50), np.uint64)) for _ in range(2))
        both = len(set(one.tolist()) & set(other.tolist()))
        assert words._shared(one, other) == words.shared_by_arrays(one, other) == both


def test_a_library_of_another_source_is_refused(monkeypatch, tmp_path):
    (tmp_path / "words.c").write_text("/* other */")
    monkeypatch.setattr(compiled, "SOURCE", tmp_path / "words.c")
    with pytest.raises(compiled.UserError, match="was built from another"):
        compiled._load()
