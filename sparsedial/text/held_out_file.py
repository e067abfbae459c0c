"""The file of a text that differs most from its others, so that it can be left out and scored beside them. V tokens."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from sparsedial.text.corpus import Corpus, File
from sparsedial.text.documents import documents
from sparsedial.text.files import reading
from sparsedial.text.tokenizer import Tokenizer

MOST_FILES = 256  # that are compared, so that a folder of very many costs a few seconds
READ_BYTES = 2**16  # of a file, or a little more, from its beginning
SAMPLE_BYTES = 2**13  # of them, from their middle: beginnings are often alike (titles, licences)
MOST_SHARE = 0.25  # of the text's bytes: what is left is still the text that was named


@dataclass(frozen=True, kw_only=True)
class HeldOutFile:
    """A file that can be left out of a text, and what is left then."""

    file: Corpus
    rest: Corpus  # without its copies, too
    divergence_bits: float
    median_divergence_bits: float  # of all files that could have been left out
    bytes_share: float  # of the text, with its copies


class Sample(NamedTuple):
    """Tokens of a file."""

    ids: np.ndarray
    tokens: float  # of the whole file, as far as the sample tells


def held_out_files(corpus: Corpus, tokenizer: Tokenizer, least_tokens: int) -> Iterator[HeldOutFile]:
    """The files that can be left out of a text, the one that differs most from the others first.

    Each has about so many tokens or more, and at most a quarter of the text's bytes. What differs is how often tokens
    occur. Of each file as many tokens are looked at, since fewer seem to differ more.

    Units:  bits
    Raises: UserError for a file that is bad or cannot be read.
    """
    sizes = _sizes(corpus)
    numbers, weights = spread_over_bytes(sizes)
    samples = [_sample(corpus.files[number], int(sizes[number]), tokenizer) for number in numbers]
    could_go = [
        at
        for at, (number, sample) in enumerate(zip(numbers, samples, strict=True))
        if sample.tokens >= least_tokens and sizes[number] <= MOST_SHARE * sizes.sum()
    ]
    alike = min((len(samples[at].ids) for at in could_go), default=0)
    found = divergences([sample.ids[:alike] for sample in samples], weights, could_go, tokenizer.vocab_size)
    for at in sorted(found, key=lambda at: -found[at]):
        copies = _copies(corpus, sizes, int(numbers[at]))
        share = float(sizes[copies].sum() / sizes.sum())
        if share <= MOST_SHARE:
            file = corpus.files[numbers[at]]
            yield HeldOutFile(
                file=Corpus(files=(file,), sources=(str(file.path),)),
                rest=replace(corpus, files=tuple(one for at, one in enumerate(corpus.files) if at not in copies)),
                divergence_bits=found[at],
                median_divergence_bits=float(np.median(list(found.values()))),
                bytes_share=share,
            )


def divergences(
    samples: Sequence[np.ndarray], weights: np.ndarray, numbers: Sequence[int], vocab_size: int
) -> dict[int, float]:
    """How much these samples differ from all the others, each of which counts by its weight.

    Units:  bits
    """

    def frequencies(at: int) -> np.ndarray:
        counts_V = np.bincount(samples[at], minlength=vocab_size)
        return counts_V / max(1, counts_V.sum())

    shares = weights / weights.sum()
    whole_V = sum((shares[at] * frequencies(at) for at in range(len(samples))), np.zeros(vocab_size))
    found = {}
    for at in numbers:
        own_V = frequencies(at)
        others_V = np.maximum(whole_V - shares[at] * own_V, 0) / (1 - shares[at])
        found[at] = jensen_shannon(own_V, others_V)
    return found


def jensen_shannon(one_V: np.ndarray, other_V: np.ndarray) -> float:
    """How far two distributions are from their mean: 0 where they are equal, 1 where they have nothing in common.

    Units:  bits
    Source: Lin 1991, Divergence measures based on the Shannon entropy
    """
    mean_V = (one_V + other_V) / 2

    def above_mean(p_V: np.ndarray) -> float:
        on_V = p_V > 0
        return float((p_V[on_V] * np.log2(p_V[on_V] / mean_V[on_V])).sum())

    return (above_mean(one_V) + above_mean(other_V)) / 2


def spread_over_bytes(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The files that are compared, by number, and how much of the text each stands for.

    Of very many files it is those that evenly spread bytes of the text lie in, so that no large one is missed.
    """
    if len(sizes) <= MOST_FILES:
        return np.arange(len(sizes)), sizes
    places = (np.arange(MOST_FILES) + 0.5) / MOST_FILES * sizes.sum()
    return np.unique(np.searchsorted(np.cumsum(sizes), places, side="right"), return_counts=True)


def _sizes(corpus: Corpus) -> np.ndarray:
    """Bytes of each file as it lies on disk."""
    sizes = []
    for file in corpus.files:
        with reading(file.path):
            sizes.append(file.path.stat().st_size)
    return np.array(sizes)


def _sample(file: File, size: int, tokenizer: Tokenizer) -> Sample:
    text = b""
    for document in documents(Corpus(files=(file,), sources=())):
        text += document.text
        if len(text) >= READ_BYTES:
            break
    else:
        size = len(text)  # all of it
    start = max(0, len(text) - SAMPLE_BYTES) // 2
    middle = text[start : start + SAMPLE_BYTES].decode(errors="ignore").encode()  # without halves of characters
    ids = tokenizer.encode(middle)
    return Sample(ids, len(ids) * size / max(1, len(middle)))


def _copies(corpus: Corpus, sizes: np.ndarray, number: int) -> list[int]:
    """The files of the same content as this one, which is among them."""
    path = corpus.files[number].path
    with reading(path):
        return [
            other
            for other in np.flatnonzero(sizes == sizes[number]).tolist()
            if other == number or filecmp.cmp(path, corpus.files[other].path, shallow=False)
        ]
