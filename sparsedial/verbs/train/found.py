"""What the model of `train` is: a plan, a checkpoint, or the name of a shape."""

from __future__ import annotations

from pathlib import Path

from sparsedial.shape.published import find_shape
from sparsedial.verbs.train.planned import Found, find_plan
from sparsedial.verbs.train.started import find_start


def found_model(word: str | None, out: Path) -> Found:
    """What a word names; None where there is no word.

    Raises: UserError where it is a damaged plan or checkpoint, or names nothing.
    """
    found = word and (find_plan(word) or find_start(word, out))
    if word and not found:
        find_shape(word)
    return found or word
