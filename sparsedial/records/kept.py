"""Both sparsities at one cost: a study's best sparse and best dense model, trained on less and less of its text."""

from __future__ import annotations

from typing import Literal

from sparsedial.records.evaluation import PairedDifference
from sparsedial.records.quantities import Family, Interval
from sparsedial.records.record import Record
from sparsedial.shape.shape import Shape

Moves = Literal["towards_sparse", "towards_dense", "undecided"]


class KeptRuns(Record, frozen=True, kw_only=True):
    """What the remaining time allows of the runs on kept shares, fixed before the first of them."""

    budgets_flops: tuple[float, ...]  # none where there is no time
    at_equal_total: bool  # whether the kept shares are trained again with fewer tokens, which pay for the selection


class KeptShare(Record, frozen=True, kw_only=True):
    """One share of the text's train split, as a text of its own; held-out text is the same for all."""

    kept: float  # 1 is the full text
    train_tokens: int
    text_digest: str
    manifest_digest: str | None  # of its selection; null of the full text
    folder: str | None  # of its selection, which `study` and `train` read; null of the full text


class KeptPoint(Record, frozen=True, kw_only=True):
    """One model on one share at one budget. Intervals are 95 %, over seeds."""

    kept: float
    family: Family
    budget_flops: float
    shape: Shape
    flops: int  # of each run
    tokens: int  # that each run reads
    repeats: float  # how often it reads its share
    seeds: int
    loss: Interval | None  # on test text, nats per token; null where every run diverged
    bits_per_byte: Interval | None  # on test text
    validation_loss: Interval | None
    runs: tuple[str, ...]  # hashes, in the order of the seeds
    diverged: int


class SparseMinusDense(Record, frozen=True, kw_only=True):
    """Test loss of the sparse model minus that of the dense one on one share at one budget, by seed; null: no pairs."""

    kept: float
    budget_flops: float
    difference: PairedDifference | None  # below 0 sparse is better
    change: PairedDifference | None  # of it, against the full text; 95 % for all shares together; null of the full text
    moves: Moves | None  # where leaving data out moves the best sparsity; null of the full text


class BestPair(Record, frozen=True, kw_only=True):
    """A share of the text and a family of models."""

    kept: float
    family: Family


class Pairing(Record, frozen=True, kw_only=True):
    """The best pair at the largest budget, by test loss."""

    best: BestPair | None  # of lowest mean; null where nothing was compared
    undecided: bool  # whether another pair may be as good
    gap: PairedDifference | None  # best minus the pair that it is told from least surely; null without two pairs
    next_best: BestPair | None  # that pair


class EqualTotalPairs(Record, frozen=True, kw_only=True):
    """The comparison at the largest budget where a kept share also pays for its selection, in training tokens."""

    selection_flops: float
    points: tuple[KeptPoint, ...]  # of the shares below 1; the full text costs nothing beside its training
    sparse_minus_dense: tuple[SparseMinusDense, ...]  # of the shares below 1
    pairing: Pairing
    sentence: str


class StudySelection(Record, frozen=True, kw_only=True):
    """`study --select`: which share of the text and which model are best together, at equal training FLOPs."""

    method: str
    manifest_digest: str  # names the manifests of all shares
    shares: tuple[KeptShare, ...]  # the full text first
    selection_flops: float  # of a reference model's training and its reading of the text; 0 without one
    seeds: int
    confidence: float
    budgets_flops: tuple[float, ...]  # none where the time ran out
    points: tuple[KeptPoint, ...]
    sparse_minus_dense: tuple[SparseMinusDense, ...]
    best: BestPair | None  # as in `Pairing`
    undecided: bool
    gap: PairedDifference | None
    next_best: BestPair | None
    sentence: str
    repeats_sentence: str | None  # null where nothing was trained
    equal_total: EqualTotalPairs | None
    equal_total_reason: str | None

    @property
    def plan_share(self) -> KeptShare:
        """The share whose tokens a plan may count on: that of the best pair, or the full text where it is undecided."""
        kept = 1.0 if self.undecided or self.best is None else self.best.kept
        return next(share for share in self.shares if share.kept == kept)
