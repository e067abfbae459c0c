"""`select.json`: what was left out of a text, by which filter, and what that did."""

from __future__ import annotations

from sparsedial.records.record import Record

SELECT_FILE = "select.json"
EXAMPLES_FILE = "examples.html"


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

    read: TextAmount
    kept: TextAmount


class Filter(Record, frozen=True, kw_only=True):
    """A reason to leave documents out, and how many it left out."""

    name: str  # as in the manifest's column `reason`
    says: str
    source: str
    threshold: float | None  # null for a filter without one
    removed: TextAmount
    examples: str  # where they can be read


class Selected(Record, frozen=True, kw_only=True):
    """`select.json`: a selection of a text."""

    manifest: SelectedManifest
    text_digest: str  # of the names and texts of all documents
    sources: tuple[str, ...]  # files and folders, as absolute paths; none for the standard library
    near: float
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
    contaminated: None  # items of tasks are not looked for yet
    contaminated_reason: str
    effect: None  # nothing is trained to measure it yet
    effect_reason: str
    warnings: tuple[str, ...]
    wall_seconds: float
    peak_process_bytes: int
