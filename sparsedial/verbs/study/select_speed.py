"""How long a selection takes, measured on a part of its text and on a few steps of a reference model."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sparsedial.selection.bands import bands_for
from sparsedial.selection.judging import first_broken
from sparsedial.selection.reference import CONTEXT, SCORED_WINDOWS, reference_recipe, reference_shape
from sparsedial.selection.scores import SCORES
from sparsedial.selection.sketch import sketches
from sparsedial.selection.token_losses import reference_seconds
from sparsedial.sweep.question import Question
from sparsedial.text.corpus import open_corpus
from sparsedial.text.documents import documents
from sparsedial.text.prepare import Text
from sparsedial.text.splits import SPLITS, entry
from sparsedial.verbs.select.settings import SelectSettings
from sparsedial.verbs.study.select_method import Method

SAMPLE_BYTES = 2**21  # of the text that is timed
READINGS = 3  # of the text: to split it, to sketch it, and to compare it


def select_seconds(method: Method, full: Text, question: Question) -> float:
    """About how long one core takes to select from a text by a method.

    Raises: UserError where the text is too small to train a reference model.
    """
    whole = sum(full.bytes(split) for split in SPLITS)
    seconds = whole * _seconds_per_byte(question.sources, method.quality)
    if not SCORES[method.score].reference:
        return seconds
    shape = reference_shape(full, CONTEXT)
    recipe = reference_recipe(full, CONTEXT, question.inputs.seed, "select", "another <select>")
    score, learn = reference_seconds(shape, recipe, context=CONTEXT, device=question.inputs.device, threads=1)
    scored = min(SCORED_WINDOWS * CONTEXT * full.documents, full.train_tokens)
    return seconds + recipe.steps * learn + scored * score


def _seconds_per_byte(sources: Sequence[str], quality: Sequence[str]) -> float:
    """Seconds for a byte of the text, of its first documents: read, split, sketched and judged."""
    began, read, sample = time.perf_counter(), 0, []
    for document in documents(open_corpus(tuple(sources))):
        sample.append(document)
        read += len(document.text)
        if read >= SAMPLE_BYTES:
            break
    reading = time.perf_counter() - began
    began = time.perf_counter()
    sketches([document.text for document in sample], bands_for(SelectSettings.__dataclass_fields__["near"].default))
    for document in sample:
        entry(document)
        if quality:
            first_broken(document.text, quality)
    return (READINGS * reading + time.perf_counter() - began) / read
