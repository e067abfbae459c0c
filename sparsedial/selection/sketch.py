"""What documents are compared by: their words, runs of five words, and a MinHash sketch of those runs."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sparsedial.selection.minhash import RMinHash  # pyright: ignore[reportAttributeAccessIssue]
from sparsedial.text.documents import PART_BYTES
from sparsedial.text.sought import distinct
from sparsedial.text.spaces import SPACE, squeezed

RUN_WORDS = 5
SEED = 1  # of the sketches
FACTOR = np.uint64(0x9E3779B97F4A7C15)
INVERSE = np.uint64(pow(int(FACTOR), -1, 2**64))
OTHER_BLANKS = re.compile("[\x85\u1680\u2028\u2029]")  # white space beyond ASCII that NFKC leaves
LETTERS = np.random.default_rng(SEED).integers(0, 2**64, 256, np.uint64)  # a number for each byte


@dataclass(frozen=True, eq=False)
class Sketch:
    """A document as it is compared with others."""

    digest: bytes  # equal for texts that differ in white space and forms of Unicode only
    runs: np.ndarray  # 64-bit hashes of its runs of words, each once, in order
    minhash: RMinHash


def plain_of(text: bytes) -> bytes:
    """The words of a text, one space apart, in Unicode's form NFKC."""
    if text.isascii():
        return squeezed(text)
    return squeezed(OTHER_BLANKS.sub(" ", unicodedata.normalize("NFKC", text.decode())).encode())


def sketches(texts: Sequence[bytes], permutations: int) -> list[Sketch]:
    """A sketch of each text, over the whole set of its runs: their order does not matter."""
    plain = list(map(plain_of, texts))
    runs = [runs_of(hashed_words(each)) for each in plain]
    minhashes = RMinHash.from_token_sets([_tokens(found) for found in runs], permutations, SEED)
    digests = (hashlib.blake2b(each, digest_size=16).digest() for each in plain)
    return list(map(Sketch, digests, runs, minhashes))


def hashed_words(plain: bytes) -> np.ndarray:
    """A 64-bit hash of each word of a plain text.

    A polynomial of its letters' numbers modulo 2^64, from running sums over the text: a word's part of the sum is
    divided by the power at which it begins.
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


def runs_of(hashed: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each different run of five words, in order; a text of fewer words is one run.

    A polynomial of the words' own hashes modulo 2^64, mixed: 10^5 runs of a document collide by chance once in 10^9.
    """
    return distinct(word_runs(hashed, min(RUN_WORDS, len(hashed))))


def word_runs(numbered_words: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
    """A 64-bit hash of each run of so many words, in their order; words are given as numbers.

    Shapes: [words] to uint64 [words - length + 1]
    """
    words = _mixed(np.asarray(numbered_words, np.uint64))
    found = words
    for shift in range(1, length):
        found = found[:-1] * FACTOR + words[shift:]
    return _mixed(found)


def _mixed(values: np.ndarray) -> np.ndarray:
    """The values with all bits mixed, one to one (the end of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _tokens(runs: np.ndarray) -> list[bytes]:
    """The runs as byte strings; a string ends at its last byte that is not 0, which keeps them apart."""
    return runs.view("S8").tolist()


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """The share of the runs of two documents that both have."""
    if not len(one) or not len(other):
        return 0.0
    at = np.searchsorted(one, other)
    at[at == len(one)] = 0
    both = int(np.count_nonzero(one[at] == other))
    return both / (len(one) + len(other) - both)
