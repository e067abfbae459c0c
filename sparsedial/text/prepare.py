"""A corpus made ready for training: tokens of three splits on disk, mapped into memory, with what is known of them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedial import store
from sparsedial.errors import UserError
from sparsedial.text.corpus import Corpus, Document, documents, open_corpus
from sparsedial.text.manifest import MANIFEST, ManifestWriter, read_manifest, row_of
from sparsedial.text.overlap import Overlap
from sparsedial.text.shards import MAKE_AGAIN, Shard, check_file, mapped
from sparsedial.text.splits import SPLITS, Entry, assign, cuts, destinations, entry, group_sizes, is_same
from sparsedial.text.tokenizer import Tokenizer, bpe_size, byte_tokenizer, load_tokenizer, train_bpe

if TYPE_CHECKING:
    import polars

PROTOCOL = 1  # rises when the same sources would give other tokens
BPE_MOST_BYTES = 256 * 2**20  # of the train split that a BPE learns from
LEAST_BYTES = 4096
NOT_IN_SUMMARY = ("kind", "request", "tokenizer", "splits", "manifest")  # of a text's facts
LOST_SHARE = 0.01  # of held-out documents that a tokenizer may change before it is refused


@dataclass(frozen=True, kw_only=True, eq=False)
class Text:
    """A prepared text: its tokens by split, its tokenizer, and the facts a report needs."""

    folder: Path
    digest: str  # of tokens and tokenizer: the same text has the same digest on every machine
    tokenizer: Tokenizer
    facts: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray] = field(repr=False, compare=False)
    lengths: Mapping[str, np.ndarray] = field(repr=False, compare=False)  # bytes per held-out token; none for bytes

    def tokens(self, split: str) -> np.ndarray:
        """The split's ids: an end token, then each document and its end token; read-only, mapped from disk."""
        return self.arrays[split]

    def bytes(self, split: str) -> int:
        """Bytes of the split's text."""
        return self.facts["splits"][split]["bytes"]

    @property
    def train_tokens(self) -> int:
        return len(self.arrays["train"])

    @property
    def validation_tokens(self) -> int:
        return len(self.arrays["validation"])

    @property
    def test_tokens(self) -> int:
        return len(self.arrays["test"])

    @property
    def documents(self) -> int:
        """Documents in all three splits."""
        return sum(self.facts["splits"][split]["documents"] for split in SPLITS)

    @property
    def manifest(self) -> polars.LazyFrame:
        """One row a document, in the order of the corpus, read from disk where it is asked for.

        Raises: UserError for a text that was prepared by a version that wrote none.
        """
        if "manifest" not in self.facts:
            raise UserError(
                f"{self.folder}: prepared by a version that wrote no manifest of its documents",
                hint="prepare the text in another folder: it has the same tokens there",
            )
        return read_manifest(self.folder / MANIFEST)

    @property
    def overlap(self) -> dict[str, Any]:
        """How much of validation and test also stands in train, as a share of sampled windows of text."""
        return self.facts["overlap"]

    def summary(self) -> dict[str, Any]:
        """What `study.json` says of the text."""
        return {
            "digest": self.digest,
            "train_tokens": self.train_tokens,
            "validation_tokens": self.validation_tokens,
            "test_tokens": self.test_tokens,
            "bytes": sum(self.bytes(split) for split in SPLITS),
            "documents": self.documents,
            "tokenizer": {
                "name": self.tokenizer.name,
                "vocab_size": self.tokenizer.vocab_size,
                "digest": self.tokenizer.digest,
            },
            **{key: value for key, value in self.facts.items() if key not in NOT_IN_SUMMARY},
        }


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one reading of a corpus found: enough to read it again and know that it is the same."""

    corpus: Corpus
    cut: Mapping[str, int]
    entries: tuple[Entry, ...]
    digest: str  # of names and texts

    @property
    def bytes(self) -> int:
        """Of all texts."""
        return sum(item.size for item in self.entries)

    @property
    def grouped(self) -> bool:
        """Whether the corpus itself says which documents belong together."""
        return any(file.group for file in self.corpus.files)

    def again(self) -> Iterator[Document]:
        """The same documents once more.

        Raises: UserError where a file changed since.
        """
        count = 0
        for document in documents(self.corpus, self.cut):
            if count >= len(self.entries) or not is_same(document, self.entries[count]):
                raise UserError(f"{document.name} changed while the text was prepared", hint="run the command again")
            count += 1
            yield document
        if count < len(self.entries):
            raise UserError("the text became shorter while it was prepared", hint="run the command again")


def prepare(sources: Iterable[str], *, tokenizer: str | Tokenizer = "bytes", folder: Path, whole: bool = False) -> Text:
    """Split, tokenize and store a text in `folder`, or open what is there already from the same text and tokenizer.

    No source means the standard library. `tokenizer` is `bytes`, `bpe:N`, the path of a tokenizer.json, or a Tokenizer.
    `whole` puts everything into the test split, to evaluate on. The corpus is read several times and never held.

    Raises: UserError for bad text (empty, tiny, binary, wrongly encoded, unreadable, missing), a tokenizer that loses
    text, and a folder that cannot be written.
    """
    made = _given_tokenizer(tokenizer)
    reading = _read(open_corpus(tuple(map(str, sources))), uncut=whole)
    setting = made.digest if made else str(tokenizer)
    request = store.digest({"protocol": PROTOCOL, "text": reading.digest, "tokenizer": setting, "whole": whole})
    if (ready := _opened(folder, request)) is not None:
        return ready
    splits, removed = _destinations(reading, whole)
    if made is None:
        made = train_bpe(_sample(reading, splits), bpe_size(str(tokenizer)) or 0)
    with store.lock(folder):
        for left in folder.glob(".*.partial"):  # of a process that was killed
            left.unlink()
        made.save(folder / "tokenizer")
        facts = {
            "kind": "text",
            "request": request,
            "tokenizer": {"name": made.name, "digest": made.digest},
            **_origin(reading, whole),
            "duplicates_removed": removed,
            "duplicates_in_train": _duplicates_in_train(reading, splits),
            **_write(reading, splits, made, folder),
        }
        store.write_json(folder / "text.json", {**facts, "digest": _digest(facts["splits"], made)})
    return open_text(folder, verify=False)


def _origin(reading: Reading, whole: bool) -> dict[str, Any]:
    unit = "module" if reading.grouped else "part of a document" if reading.cut else "document"
    return {
        "sources": list(reading.corpus.sources),
        "source_digest": reading.digest,
        "python_version": reading.corpus.python_version,
        "files_left_out": reading.corpus.left_out_files,
        "split_by": "nothing" if whole else unit,
        "documents_cut": len(reading.cut),
    }


def _given_tokenizer(setting: str | Tokenizer) -> Tokenizer | None:
    """The tokenizer that a setting names, None for one that is to be trained."""
    if isinstance(setting, Tokenizer):
        return setting
    if setting == "bytes":
        return byte_tokenizer()
    return None if bpe_size(setting) else load_tokenizer(Path(setting).expanduser())


def _digest(shards: Mapping[str, Any], tokenizer: Tokenizer) -> str:
    return store.digest({"tokenizer": tokenizer.digest, **{split: shards[split]["sha256"] for split in SPLITS}})


def _read(corpus: Corpus, *, uncut: bool = False, cut: Mapping[str, int] | None = None) -> Reading:
    entries: list[Entry] = []
    together = hashlib.sha256()
    for document in documents(corpus, cut):
        entries.append(entry(document))
        together.update(store.digest([document.name, document.group, len(document.text)]).encode())
        together.update(document.text)
    if not entries:
        named = ", ".join(corpus.sources) or "the standard library"
        raise UserError(f"{named}: empty: no text in {len(corpus.files)} files")
    reading = Reading(corpus=corpus, cut=cut or {}, entries=tuple(entries), digest=together.hexdigest())
    if not uncut and reading.bytes < LEAST_BYTES:
        raise UserError(
            f"{', '.join(corpus.sources)}: {reading.bytes} bytes are too few to train on and to hold some out",
            hint=f"at least {LEAST_BYTES}",
        )
    if cut is None and not uncut and not reading.grouped and (found := cuts(entries)):
        return _read(corpus, cut=found)
    return reading


def _destinations(reading: Reading, whole: bool) -> tuple[list[str | None], dict[str, int]]:
    if whole:
        return ["test"] * len(reading.entries), {"validation": 0, "test": 0}
    found, removed = destinations(reading.entries, assign(group_sizes(reading.entries)))
    for split in SPLITS:
        if split not in found:
            raise UserError(
                f"text: none of {len(found)} documents is left for {split}, after {sum(removed.values())} equal ones",
                hint="give text that differs more",
            )
    return found, removed


def _duplicates_in_train(reading: Reading, splits: list[str | None]) -> int:
    """Train documents that equal an earlier one but for white space; they stay, and repeat more often than others."""
    texts = [item.fingerprint for item, split in zip(reading.entries, splits, strict=True) if split == "train"]
    return len(texts) - len(set(texts))


def _sample(reading: Reading, splits: list[str | None]) -> Iterator[bytes]:
    """The train split for a BPE to learn from; evenly spread documents of it where it is very large."""
    sizes = np.array([item.size * (split == "train") for item, split in zip(reading.entries, splits, strict=True)])
    every = max(1, -(-int(sizes.sum()) // BPE_MOST_BYTES))
    number = 0
    for document, split in zip(reading.again(), splits, strict=True):
        if split == "train":
            number += 1
            if number % every == 0:
                yield document.text


def _write(reading: Reading, splits: list[str | None], tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    """Write the shards and the manifest; gives what is known only then."""
    overlap = _held_out_windows(reading, splits)
    changed: list[str] = []
    with contextlib.ExitStack() as stack:
        shards = {split: stack.enter_context(Shard(folder, split, tokenizer)) for split in SPLITS}
        manifest = stack.enter_context(ManifestWriter(folder))
        for document, split in zip(reading.again(), splits, strict=True):
            if split is None:
                continue
            overlap.look_through(split, document.text)
            added = shards[split].add(document.text)
            manifest.add(row_of(document, split, added))
            if not added.kept:
                changed.append(document.name)
        _refuse_loss(changed, shards["validation"].documents + shards["test"].documents, tokenizer)
        return {
            "splits": {split: shard.close() for split, shard in shards.items()},
            "manifest": manifest.close(),
            "overlap": overlap.record(),
            "documents_changed_by_tokenizer": len(changed),
        }


def _held_out_windows(reading: Reading, splits: list[str | None]) -> Overlap:
    sizes: dict[str, int] = dict.fromkeys(SPLITS, 0)
    for item, split in zip(reading.entries, splits, strict=True):
        if split is not None:
            sizes[split] += item.size
    overlap = Overlap(sizes)
    for document, split in zip(reading.again(), splits, strict=True):
        if split is not None:
            overlap.sample(split, document.text)
    overlap.close()
    return overlap


def _refuse_loss(changed: list[str], held_out: int, tokenizer: Tokenizer) -> None:
    if len(changed) > LOST_SHARE * held_out:
        raise UserError(
            f"tokenizer {tokenizer.name}: {len(changed)} of {held_out} held-out documents do not come back from it as "
            f"they were, the first is {changed[0]}",
            hint="bits per byte would be wrong: take bytes, bpe:N, or a byte-level tokenizer",
        )


def _opened(folder: Path, request: str) -> Text | None:
    """What an earlier `prepare` left for the same request, or None where it is missing, damaged or of another text."""
    if not (folder / "text.json").exists():
        return None
    try:
        text = open_text(folder)
    except UserError:
        return None  # made again rather than believed
    return text if text.facts["request"] == request else None


def open_text(folder: Path, *, verify: bool = True) -> Text:
    """A prepared text; `verify` reads every shard and compares its digest, else only sizes are compared.

    Raises: UserError naming the file that is missing, truncated or edited.
    """
    record = store.read_json(folder / "text.json")
    if record.get("kind") != "text":
        raise UserError(f"{folder / 'text.json'}: not a prepared text")
    tokenizer = load_tokenizer(folder / "tokenizer")
    if tokenizer.digest != record["tokenizer"]["digest"]:
        raise UserError(f"{folder / 'tokenizer'}: not the tokenizer that made this text", hint=MAKE_AGAIN)
    shards = record["splits"]
    arrays = {
        split: mapped(
            folder / f"{split}.bin", tokenizer.dtype, shards[split]["tokens"], shards[split]["sha256"], verify
        )
        for split in SPLITS
    }
    lengths = {
        split: mapped(folder / f"{split}.lengths.bin", np.dtype(np.uint32), len(arrays[split]), stated, verify)
        for split in SPLITS
        if (stated := shards[split]["lengths_sha256"]) is not None
    }
    if "manifest" in record:  # versions before it wrote none, and their studies go on
        check_file(folder / MANIFEST, record["manifest"]["bytes"], record["manifest"]["sha256"], verify)
    facts = {key: value for key, value in record.items() if key not in ("schema_version", "digest")}
    return Text(
        folder=folder, digest=record["digest"], tokenizer=tokenizer, facts=facts, arrays=arrays, lengths=lengths
    )
