"""What documents are compared by: their words, runs of five words, and a MinHash sketch of those runs."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsedial.selection.minhash import RMinHash  # pyright: ignore[reportAttributeAccessIssue]

RUN_WORDS = 5
SEED = 1  # of the sketches
FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, eq=False)
class Sketch:
    """A document as it is compared with others."""

    digest: bytes  # equal for texts that differ in white space and forms of Unicode only
    runs: np.ndarray  # 64-bit hashes of its runs of words, each once, in order
    minhash: RMinHash


def words_of(text: bytes) -> list[str]:
    """The words of a text: what white space separates, in Unicode's form NFKC."""
    plain = text.decode()
    return (plain if plain.isascii() else unicodedata.normalize("NFKC", plain)).split()


def sketches(texts: Sequence[bytes], permutations: int) -> list[Sketch]:
    """A sketch of each text, over the whole set of its runs: their order does not matter."""
    each = [words_of(text) for text in texts]
    runs = list(map(runs_of, RMinHash.hash_token_sets(each)))
    minhashes = RMinHash.from_token_sets([_tokens(found) for found in runs], permutations, SEED)
    digests = (hashlib.blake2b(" ".join(words).encode(), digest_size=16).digest() for words in each)
    return list(map(Sketch, digests, runs, minhashes))


def runs_of(hashed_words: Sequence[int]) -> np.ndarray:
    """A 64-bit hash of each different run of five words, in order; a text of fewer words is one run.

    A polynomial of the words' own hashes modulo 2^64, mixed: 10^5 runs of a document collide by chance once in 10^9.
    """
    words = _mixed(np.array(hashed_words, np.uint64))
    found = words
    for shift in range(1, min(RUN_WORDS, len(words))):
        found = found[:-1] * FACTOR + words[shift:]
    return np.unique(_mixed(found))


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
