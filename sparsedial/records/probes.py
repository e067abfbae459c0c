"""Scores of models on probes, and what a study finds from them."""

from __future__ import annotations

import statistics
from typing import Literal

from sparsedial.records.quantities import Interval
from sparsedial.records.record import Record

ProbeKind = Literal["arithmetic", "facts", "reading"]
EFFECT_UNIT = "bits per byte for +0.1 of expert sparsity"


class ProbeScore(Record, frozen=True, kw_only=True):
    """The scores of a model on one level of probes. Intervals are 95 %."""

    items: int
    answer_bits_per_byte: Interval  # of the right answers
    exact: Interval  # share of the answers that the model gives exactly, as its likeliest tokens
    chance: float  # the share that is right by the best constant answer to each sort of question
    p_value: float  # how often guessing is right at least as often
    at_chance: bool  # whether that is more often than in 5 % of cases


ProbeScores = dict[ProbeKind, dict[str, ProbeScore]]  # by level


def bits_per_byte(probes: ProbeScores, kind: ProbeKind) -> float:
    """Bits per byte of the right answers, the mean over the levels of a kind."""
    return statistics.fmean(score.answer_bits_per_byte.mean for score in probes[kind].values())


class ProbedCell(Record, frozen=True, kw_only=True):
    """The probe scores of a cell's run."""

    run: str  # its hash
    sparsity: float  # of experts
    loss: float  # of this run on validation text, nats per token
    probes: ProbeScores

    def bits_per_byte(self, kind: ProbeKind) -> float:
        """Bits per byte of the right answers, the mean over the levels of a kind."""
        return bits_per_byte(self.probes, kind)


class EqualLossEffect(Record, frozen=True, kw_only=True):
    """How the answers to probes change with sparsity at equal validation loss, from a regression over cells."""

    effect_of_sparsity: Interval | None  # null where the cells allow no regression: the sentence says why
    unit: str = EFFECT_UNIT
    cells: int
    resolved: bool  # whether the interval excludes 0
    sentence: str


class StudyProbes(Record, frozen=True, kw_only=True):
    """The probes of a study."""

    share: float  # of the training tokens
    seed: int
    cells: tuple[ProbedCell, ...]
    reading_at_equal_loss: EqualLossEffect
    facts_at_equal_loss: EqualLossEffect
