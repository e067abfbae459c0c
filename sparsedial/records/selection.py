"""`select.json`: what was left out of a text, by which filter, and what that did."""

from __future__ import annotations

from typing import ClassVar, Literal

from sparsedial.records.effect import Effect
from sparsedial.records.record import Record
from sparsedial.shape.shape import Shape

SELECT_FILE = "select.json"
EXAMPLES_FILE = "examples.html"

ReferenceSide = Literal["low", "middle", "high"]


class SelectedManifest(Record, frozen=True, kw_only=True):
    """The manifest of a selection: one row for each document of the text."""

    path: str
    digest: str  # SHA-256 of the file
    bytes: int


class TextAmount(Record, frozen=True, kw_only=True):
    """How much text."""

    documents: int
    bytes: int
    tokens: int | None  # null before a tokenizer is chosen


class DomainAmounts(Record, frozen=True, kw_only=True):
    """How much of a domain was read, and how much of that stays."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("share_before", "share_after")

    read: TextAmount
    kept: TextAmount
    share_before: float | None = None  # of the train text's bytes; null in files of earlier versions
    share_after: float | None = None  # of the bytes of the train text that stays; null in files of earlier versions


class Filter(Record, frozen=True, kw_only=True):
    """A reason to leave documents out, and how many it left out."""

    name: str  # as in the manifest's column `reason`
    says: str
    source: str
    threshold: float | None  # null for a filter without one
    removed: TextAmount
    examples: str  # where they can be read; empty in the random part of an effect


class ReferenceModel(Record, frozen=True, kw_only=True):
    """The small model whose loss on a document is its score, and what it cost."""

    shape: Shape
    run: str  # hash
    tokens: int  # that it learned from: a sample of the train text
    validation_loss: float  # nats per token
    documents_scored: int
    tokens_scored: int
    training_flops: float
    scoring_flops: float
    seconds: float

    @property
    def flops(self) -> float:
        """Of its training and of its scores."""
        return self.training_flops + self.scoring_flops


class ContaminatedTask(Record, frozen=True, kw_only=True):
    """Items of a task of which the train text holds a run of 13 words, and the documents that hold them."""

    task: str
    judged: int  # items of at least 8 words: shorter ones would stand in a text by chance
    items: int
    documents: int


class RepeatedSpans(Record, frozen=True, kw_only=True):
    """Passages of 50 words and more of train documents, no copies, that stand in held-out or earlier documents."""

    documents: int  # that hold such passages, with those left out for them
    spans: int
    bytes: int  # of these passages, with words one space apart


class SelectionPipeline(Record, frozen=True, kw_only=True):
    """A script by which another program leaves out of a text what `select` would."""

    peer: str
    file: str
    command: str  # that runs it
    written_for: str  # the version whose names it uses
    kept: str  # where the text that stays will lie


class Selected(Record, frozen=True, kw_only=True):
    """`select.json`: a selection of a text."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = (
        "side",
        "keep_by",
        "quality",
        "reference",
        "tasks",
        "items",
        "spans",
        "repeated_spans",
    )

    manifest: SelectedManifest
    text_digest: str  # of the names and texts of all documents
    sources: tuple[str, ...]  # files and folders, as absolute paths; none for the standard library
    near: float | None  # null in other parts of an effect, which hold copies of train text as it does
    keep: float | None  # null where all that is no duplicate stays
    score: str | None  # null without `keep`
    seed: int
    read: TextAmount
    kept: TextAmount  # held-out text among it
    held_out: TextAmount
    tokens_reason: str | None  # why no tokens are counted
    domains: dict[str, DomainAmounts] | None  # null where the text is not one folder with sub-folders
    filters: tuple[Filter, ...]
    skipped_lines: int
    contaminated: tuple[ContaminatedTask, ...] | None  # null where no task was named
    contaminated_reason: str | None
    effect: Effect | None
    effect_reason: str | None
    warnings: tuple[str, ...]
    wall_seconds: float
    peak_process_bytes: int
    side: ReferenceSide | None = None  # of a score that has sides; null without one
    keep_by: Literal["text", "domain"] = "text"  # of which `keep` is a share
    quality: tuple[str, ...] = ()  # families of rules
    spans: float | None = None  # the share of a document that may be repeated passages; null: not looked for
    repeated_spans: RepeatedSpans | None = None  # null where they were not looked for
    tasks: tuple[str, ...] = ()  # whose items were looked for
    items: Literal["remove", "report"] | None = None  # what was done with documents that hold some; null without tasks
    reference: ReferenceModel | None = None  # null where no model scored the documents
