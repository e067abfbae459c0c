"""Words and runs of words as 64-bit hashes: compiled where the library is there, and in NumPy, which defines them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from sparsedial.text.compiled import address, library
from sparsedial.text.documents import PART_BYTES
from sparsedial.text.spaces import SPACE

FACTOR = np.uint64(0x9E3779B97F4A7C15)
INVERSE = np.uint64(pow(int(FACTOR), -1, 2**64))
LETTERS = np.random.default_rng(1).integers(0, 2**64, 256, np.uint64)  # a number for each byte


def hashed_words(plain: bytes) -> np.ndarray:
    """A 64-bit hash of each word of a text whose words are one space apart: a polynomial of its letters' numbers."""
    if library is None:
        return hashed_by_arrays(plain)
    hashes = np.empty(len(plain) // 2 + 1, np.uint64)
    return hashes[: library.hash_words(plain, len(plain), address(LETTERS), address(hashes))]


def hashed_by_arrays(plain: bytes) -> np.ndarray:
    """The same with NumPy: running sums over the text; a word's part of one is divided by the power at which it begins.

    The polynomials are modulo 2^64.
    """
    letters = np.frombuffer(plain, np.uint8)
    powers, inverses = _powers(max(PART_BYTES, 1 << len(letters).bit_length()))
    sums = np.zeros(len(letters) + 1, np.uint64)
    np.cumsum(LETTERS[letters] * powers[: len(letters)], out=sums[1:])
    spaces = np.flatnonzero(letters == SPACE)
    begins, ends = np.append(0, spaces + 1), np.append(spaces, len(letters))
    return (sums[ends] - sums[begins]) * inverses[begins]


@lru_cache(maxsize=2)
def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """So many powers of the factor, and of its inverse."""
    first = np.uint64(1)
    of_factor, of_inverse = (
        np.multiply.accumulate(np.append(first, np.full(count - 1, of))) for of in (FACTOR, INVERSE)
    )
    return of_factor, of_inverse


def word_runs(numbered_words: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
    """A 64-bit hash of each run of so many words, in their order; words are given as numbers.

    A polynomial of the words' own hashes modulo 2^64, mixed.

    Shapes: [words] to uint64 [words - length + 1]
    """
    if library is None:
        return runs_by_arrays(numbered_words, length)
    hashes = np.array(numbered_words, np.uint64)
    library.hash_runs(address(hashes), len(hashes), length)
    return hashes[: max(0, len(hashes) - length + 1)]


def runs_by_arrays(numbered_words: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
    """The same with NumPy."""
    words = mixed(np.asarray(numbered_words, np.uint64))
    found = words
    for shift in range(1, length):
        found = found[:-1] * FACTOR + words[shift:]
    return mixed(found)


def mixed(values: np.ndarray) -> np.ndarray:
    """The values with all bits mixed, one to one (the end of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """The share of the runs of two documents that both have; each document's runs are distinct and in order."""
    both = shared_by_arrays(one, other) if library is None else _shared(one, other)
    return both / max(1, len(one) + len(other) - both)


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    return library.count_shared(address(one), len(one), address(other), len(other))


def shared_by_arrays(one: np.ndarray, other: np.ndarray) -> int:
    """How many runs two documents share."""
    if not len(one) or not len(other):
        return 0
    at = np.searchsorted(one, other)
    at[at == len(one)] = 0
    return int(np.count_nonzero(one[at] == other))
