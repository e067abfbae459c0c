"""What documents are compared by: their words, runs of five words, and the bands of a MinHash sketch of those runs."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsedial.selection.bands import Bands
from sparsedial.selection.minhash import minhashes
from sparsedial.selection.words import hashed_words, word_runs
from sparsedial.text.sought import distinct
from sparsedial.text.spaces import squeezed

RUN_WORDS = 5
DIGEST_BYTES = 16
OTHER_BLANKS = "\x85\u1680\u2028\u2029"  # white space beyond ASCII that NFKC leaves


@dataclass(frozen=True, eq=False)
class Sketch:
    """A document as it is compared with others."""

    digest: bytes  # equal for texts that differ in white space and forms of Unicode only
    runs: np.ndarray  # 64-bit hashes of its runs of words, each once, in order
    keys: np.ndarray  # one of each band: documents that have one in common are candidates


def plain_of(text: bytes) -> bytes:
    """The words of a text, one space apart, in Unicode's form NFKC."""
    if text.isascii():
        return squeezed(text)
    plain = unicodedata.normalize("NFKC", text.decode())
    for blank in OTHER_BLANKS:  # rare: to look for four characters is faster than to replace by a table
        plain = plain.replace(blank, " ")
    return squeezed(plain.encode())


def sketches(texts: Sequence[bytes], bands: Bands) -> list[Sketch]:
    """A sketch of each text, over the whole set of its runs: their order does not matter."""
    plain = list(map(plain_of, texts))
    runs = [runs_of(hashed_words(each)) for each in plain]
    keys = bands.keys(minhashes(runs, bands.permutations))
    digests = (hashlib.blake2b(each, digest_size=DIGEST_BYTES).digest() for each in plain)
    return list(map(Sketch, digests, runs, keys))


def runs_of(hashed: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each different run of five words, in order; a text of fewer words is one run.

    10^5 runs of a document collide by chance once in 10^9.
    """
    return distinct(word_runs(hashed, min(RUN_WORDS, len(hashed))))
