"""How fast a model reads and writes, by a short trial, so that a long evaluation's time can be told beforehand."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from sparsedial.evaluation.scorer import Scorer
from sparsedial.model.greedy import go_on

ROUNDS = 3
READ_TOGETHER, WRITTEN_TOGETHER, WRITTEN_EACH = 512, 16, 8


def seconds_per_token(scorer: Scorer, *, writing: bool) -> tuple[float, float]:
    """Seconds per token that is read, and per token that is written; the latter is 0 where nothing is `writing`.

    The fastest of three trials: 512 tokens are read in one row or more, and 16 answers of 8 tokens are written side by
    side.
    """
    context, words = scorer.model.shape.context, scorer.model.shape.vocab_size
    draw = random.Random(0)
    length = min(READ_TOGETHER, context)
    rows = [[draw.randrange(words) for _ in range(length)] for _ in range(READ_TOGETHER // length)]
    pairs = [(row[:-1], row[-1:]) for row in rows if len(row) > 1]
    reading = _fastest(lambda: scorer.log_likelihoods(pairs)) / sum(len(row) for row in rows)
    if not writing:
        return reading, 0.0
    prompts = [[draw.randrange(words)] for _ in range(WRITTEN_TOGETHER)]
    tokens = min(WRITTEN_EACH, context)
    return reading, _fastest(lambda: list(go_on(scorer.model, prompts, tokens))) / (tokens * len(prompts))


def _fastest(work: Callable[[], object]) -> float:
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)
