"""Documents are compared by their words alone, and exactly."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from sparsedial.selection.bands import MOST_PERMUTATIONS, Bands, bands_for
from sparsedial.selection.minhash import minhashes
from sparsedial.selection.sketch import Sketch, sketches
from sparsedial.selection.words import jaccard

from .planted import edited, plain_jaccard, prose


def sketch(text: str) -> Sketch:
    (made,) = sketches([text.encode()], Bands(4, 4))
    return made


def test_the_similarity_is_that_of_sets_of_five_words():
    texts = [" ".join(edited(prose(number % 3, 40), number, number)) for number in range(12)]
    texts += ["one", "one two three", "one two three four five", "a a a a a a a a", "été 文 ﬁne x² y z"]
    for one, other in itertools.product(texts, texts):
        assert jaccard(sketch(one).runs, sketch(other).runs) == plain_jaccard(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a b\nc", "  a\tb \r\n\n c\n"),
        ("caf\u00e9", "cafe\u0301"),
        ("\ufb01ne \uff21", "fine A"),
        ("a\u00a0b", "a b"),
    ],
)
def test_white_space_and_forms_of_unicode_are_no_difference(one, other):
    assert sketch(one).digest == sketch(other).digest
    assert np.array_equal(sketch(one).runs, sketch(other).runs)


@pytest.mark.parametrize(("one", "other"), [("a b", "ab"), ("a b", "b a"), ("a", "A"), ("a.", "a"), ("a a", "a")])
def test_any_other_difference_is_one(one, other):
    assert sketch(one).digest != sketch(other).digest


def test_a_sketch_does_not_depend_on_the_texts_beside_it():
    texts = [" ".join(prose(number)).encode() for number in range(20)]
    together = sketches(texts, Bands(8, 4))
    for text, found in zip(texts, together, strict=True):
        (alone,) = sketches([text], Bands(8, 4))
        assert np.array_equal(alone.keys, found.keys)
        assert alone.digest == found.digest


def test_a_sketch_estimates_the_similarity_whatever_the_order_of_words():
    """An order-dependent sketch would differ for the same runs in another order."""
    parts = [" ".join(prose(number, 5)) for number in range(400)]
    errors = []
    for seed in range(20):
        draw = random.Random(seed)
        one, other = sorted(draw.sample(parts, 300)), sorted(draw.sample(parts, 300), reverse=True)
        first, second = sketches([" ".join(one).encode(), " ".join(other).encode()], Bands(1, 1))
        made_P, other_P = minhashes([first.runs, second.runs], MOST_PERMUTATIONS)
        errors.append(np.mean(made_P == other_P) - jaccard(first.runs, second.runs))
    assert abs(np.mean(errors)) < 0.03


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_pairs_at_the_threshold(threshold):
    bands = bands_for(threshold)
    assert bands.found(threshold) >= 0.995
    assert bands.permutations <= MOST_PERMUTATIONS
