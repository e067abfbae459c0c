"""`text.json`, the facts of a prepared text, and what a study says of it."""

from __future__ import annotations

from typing import ClassVar, Literal

from sparsedial.records.record import Record

TEXT_FILE = "text.json"


class TokenizerWords(Record, frozen=True, kw_only=True):
    """The tokenizer of a text."""

    name: str
    vocab_size: int
    digest: str


class HeldOutCounts(Record, frozen=True, kw_only=True):
    """A number for each held-out split."""

    validation: int
    test: int

    @property
    def total(self) -> int:
        """Of both splits."""
        return self.validation + self.test


class OverlapShares(Record, frozen=True, kw_only=True):
    """Shares of sampled windows of held-out text that also occur in other splits; null where there is no window."""

    validation: float | None
    test: float | None
    test_in_validation: float | None
    window_bytes: int
    sampled_windows: HeldOutCounts


class TokenizerName(Record, frozen=True, kw_only=True):
    """The tokenizer whose files lie beside the text."""

    name: str
    digest: str


class SplitFile(Record, frozen=True, kw_only=True):
    """A split's shard, and the file of its tokens' lengths."""

    documents: int
    bytes: int  # of its text
    tokens: int  # end tokens among them
    sha256: str
    lengths_sha256: str | None  # null where no such file is needed


class SplitFiles(Record, frozen=True, kw_only=True):
    """The shards of all three splits."""

    train: SplitFile
    validation: SplitFile
    test: SplitFile

    def of(self, split: str) -> SplitFile:
        """The split of this name."""
        return self[split]


class ManifestFile(Record, frozen=True, kw_only=True):
    """A manifest of documents as a file."""

    sha256: str
    bytes: int


class SkippedLines(Record, frozen=True, kw_only=True):
    """Lines that were left out because they are not text."""

    lines: int
    named: tuple[str, ...]  # the first ones: file, line and reason


class MixedProbes(Record, frozen=True, kw_only=True):
    """Text of probes in the train split."""

    share: float  # of the split's tokens, as asked for
    seed: int  # that draws them
    documents: int
    tokens: int  # end tokens among them
    bytes: int


class SelectionOf(Record, frozen=True, kw_only=True):
    """The selection by which documents of the train split were left out."""

    manifest_digest: str
    documents_left_out: int


class TextFile(Record, frozen=True, kw_only=True):
    """`text.json`: what a prepared text was made of, and the files that hold it."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("manifest", "skipped", "probes", "selection")

    kind: Literal["text"] = "text"
    request: str  # digest of what was asked for: the same request finds this text again
    tokenizer: TokenizerName
    sources: tuple[str, ...]
    source_digest: str  # of the documents' names and texts
    python_version: str | None  # of the built-in text
    files_left_out: int
    split_by: str
    documents_cut: int
    duplicates_removed: HeldOutCounts
    duplicates_in_train: int
    splits: SplitFiles
    manifest: ManifestFile | None = None  # null where an earlier version wrote none
    overlap: OverlapShares
    documents_changed_by_tokenizer: int
    skipped: SkippedLines = SkippedLines(lines=0, named=())
    probes: MixedProbes | None = None  # null where none were asked for
    selection: SelectionOf | None = None  # null where the text is no selection
    digest: str  # of tokens and tokenizer: the same text has the same digest on every machine


class TextSummary(Record, frozen=True, kw_only=True):
    """A prepared text: its size, its splits, and what was left out."""

    digest: str
    train_tokens: int
    validation_tokens: int
    test_tokens: int
    bytes: int
    documents: int
    tokenizer: TokenizerWords
    sources: tuple[str, ...]
    source_digest: str
    python_version: str | None
    files_left_out: int
    split_by: str
    documents_cut: int
    duplicates_removed: HeldOutCounts
    duplicates_in_train: int
    overlap: OverlapShares
    documents_changed_by_tokenizer: int
