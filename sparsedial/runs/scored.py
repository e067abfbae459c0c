"""What a run that ended is scored on: the splits, and with a dial each split at each number of experts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from sparsedial.evaluation.loss import TextLoss
from sparsedial.records.trained_for import DialLoss, TrainedFor
from sparsedial.runs.executor import Split
from sparsedial.runs.job import Job
from sparsedial.shape.counts import active_parameters
from sparsedial.shape.shape import with_top_k

Scores = dict[tuple[Split, int | None], TextLoss]  # by split and number of experts; None: the shape's top_k


def to_score(dial: TrainedFor | None, splits: Sequence[Split]) -> Iterator[tuple[Split, int | None]]:
    """Each split with the shape's top_k experts, and with each lower number of the dial."""
    lower = () if dial is None else dial.top_k_experts[:-1]
    yield from itertools.product(splits, (None, *lower))


def dial_losses(job: Job, scores: Scores) -> tuple[DialLoss, ...] | None:
    """The loss at each number of the dial; None without a dial or scores."""
    if job.dial is None or not scores:
        return None
    *lower, highest = job.dial.top_k_experts
    return tuple(
        _dial_loss(job, scores, number, at) for number, at in zip((*lower, highest), (*lower, None), strict=True)
    )


def _dial_loss(job: Job, scores: Mapping[tuple[Split, int | None], TextLoss], number: int, at: int | None) -> DialLoss:
    validation, test = scores.get(("validation", at)), scores.get(("test", at))
    return DialLoss(
        top_k_experts=number,
        active_parameters=active_parameters(with_top_k(job.shape, number)),
        validation_loss=validation and validation.loss,
        validation_bits_per_byte=validation and validation.bits_per_byte,
        test_loss=test and test.loss,
        test_bits_per_byte=test and test.bits_per_byte,
    )
