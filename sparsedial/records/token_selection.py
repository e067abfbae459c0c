"""Token selection: the positions that a run's loss counts, and the reference model's losses that choose them."""

from __future__ import annotations

from sparsedial.records.evaluation import CheckpointName
from sparsedial.records.record import Record

REFERENCE_FILE = "reference.json"


class TokenSelection(Record, frozen=True, kw_only=True):
    """Which positions of a step's windows its loss counts: those whose loss is highest above a reference model's."""

    share: float  # of the positions of each step
    reference: CheckpointName
    losses_sha256: str  # of the reference's stored losses; empty in a dry run, which stores none


class ReferenceModelCost(Record, frozen=True, kw_only=True):
    """What a reference model for token selection costs; it serves every run on the same text, and is paid once."""

    training_flops: float  # 0 where the model was given
    scoring_flops: float
    seconds: float  # of both

    @property
    def flops(self) -> float:
        """Of its training and of its losses."""
        return self.training_flops + self.scoring_flops


class ReferenceLossesFile(Record, frozen=True, kw_only=True):
    """`reference.json`: the reference model's loss of every train position, a byte each, beside the tokens."""

    reference: CheckpointName
    run: str | None  # hash of the run that made the model; null where it was given
    text_digest: str
    context_tokens: int  # of the windows that it read
    stride_tokens: int  # by which they move
    tokens: int  # train positions; the first one has no loss
    loss: float  # mean of what it lost, nats per token, before rounding
    step_nats: float  # between two stored losses: the error is at most half of it
    tokens_above: int  # whose loss is above the largest that a byte holds, and is stored as that
    sha256: str  # of the bytes
    cost: ReferenceModelCost


class StudyTokens(Record, frozen=True, kw_only=True):
    """The token selection of all runs of a study."""

    share: float
    reference: ReferenceLossesFile

    @property
    def selection(self) -> TokenSelection:
        """What names each run."""
        facts = self.reference
        return TokenSelection(share=self.share, reference=facts.reference, losses_sha256=facts.sha256)
