"""Squeezed white space is what splitting and joining gives."""

from __future__ import annotations

import random

import pytest

from sparsedial.text.spaces import FEW, squeezed


@pytest.mark.parametrize("size", [0, 1, 7, FEW - 1, FEW, FEW + 1, 3000])
def test_squeezed_text_is_split_and_joined(size: int):
    draw = random.Random(size)
    for blanks in (0.0, 0.2, 0.9, 1.0):
        letters = [draw.choice(b" \t\n\v\f\r") if draw.random() < blanks else draw.randrange(256) for _ in range(size)]
        assert squeezed(bytes(letters)) == b" ".join(bytes(letters).split())
