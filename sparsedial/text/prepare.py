"""A corpus prepared for training: the tokens of three splits on disk, mapped into memory, and facts about them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparsedial import store
from sparsedial.errors import UserError
from sparsedial.records.record import try_read, write
from sparsedial.records.text import (
    TEXT_FILE,
    ManifestFile,
    MixedProbes,
    OverlapShares,
    SkippedLines,
    SplitFiles,
    TextFile,
    TextSummary,
    TokenizerName,
    TokenizerWords,
)
from sparsedial.store import Fault
from sparsedial.text.corpus import Corpus, open_corpus
from sparsedial.text.manifest import MANIFEST, ManifestWriter, read_manifest, row_of
from sparsedial.text.mixing import Mixing
from sparsedial.text.overlap import Overlap
from sparsedial.text.probes import Mixture
from sparsedial.text.reading import Reading, read_corpus
from sparsedial.text.selected import open_selection
from sparsedial.text.shards import LENGTH, MAKE_AGAIN, Shard, Stored
from sparsedial.text.splits import SPLITS
from sparsedial.text.splitting import Splitting, split_reading
from sparsedial.text.tokenizer import Tokenizer, bpe_size, named_tokenizer, train_bpe, try_load_tokenizer

if TYPE_CHECKING:
    import polars

PROTOCOL = 1  # raised when the same sources would give other tokens
BPE_MOST_BYTES = 256 * 2**20  # of the train split that a BPE learns from
LOST_SHARE = 0.01  # of held-out documents that a tokenizer may change before it is refused


@dataclass(frozen=True, kw_only=True, eq=False)
class Text:
    """A prepared text: its tokens by split, its tokenizer, and the facts a report needs."""

    folder: Path
    tokenizer: Tokenizer
    facts: TextFile
    arrays: Mapping[str, np.ndarray] = field(repr=False, compare=False)
    lengths: Mapping[str, np.ndarray] = field(repr=False, compare=False)  # bytes per held-out token; empty for `bytes`

    @property
    def digest(self) -> str:
        """Names tokens and tokenizer: the same text has the same digest on every machine."""
        return self.facts.digest

    def tokens(self, split: str) -> np.ndarray:
        """The split's ids: an end token, then each document and its end token; read-only, mapped from disk."""
        return self.arrays[split]

    def bytes(self, split: str) -> int:
        """Bytes of the split's text."""
        return self.facts.splits.of(split).bytes

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
        return sum(self.facts.splits.of(split).documents for split in SPLITS)

    @property
    def manifest(self) -> polars.LazyFrame:
        """One row per document, in the order of the corpus, read from disk on demand.

        Raises: UserError for a text that was prepared by a version that wrote none.
        """
        if self.facts.manifest is None:
            raise UserError(
                f"{self.folder}: prepared by a version that wrote no manifest of its documents",
                hint="prepare the text in another folder: it has the same tokens there",
            )
        return read_manifest(self.folder / MANIFEST)

    @property
    def overlap(self) -> OverlapShares:
        """How much of validation and test also stands in train, as a share of sampled windows of text."""
        return self.facts.overlap

    def summary(self) -> TextSummary:
        """What `study.json` says of the text."""
        facts, made = self.facts, self.tokenizer
        return TextSummary(
            digest=self.digest,
            train_tokens=self.train_tokens,
            validation_tokens=self.validation_tokens,
            test_tokens=self.test_tokens,
            bytes=sum(self.bytes(split) for split in SPLITS),
            documents=self.documents,
            tokenizer=TokenizerWords(name=made.name, vocab_size=made.vocab_size, digest=made.digest),
            sources=facts.sources,
            source_digest=facts.source_digest,
            python_version=facts.python_version,
            files_left_out=facts.files_left_out,
            split_by=facts.split_by,
            documents_cut=facts.documents_cut,
            duplicates_removed=facts.duplicates_removed,
            duplicates_in_train=facts.duplicates_in_train,
            overlap=facts.overlap,
            documents_changed_by_tokenizer=facts.documents_changed_by_tokenizer,
        )


@dataclass(frozen=True, kw_only=True)
class Written:
    """What is known of a text once its files are written."""

    splits: SplitFiles
    manifest: ManifestFile
    overlap: OverlapShares
    changed: int  # held-out documents that the tokenizer does not give back as they were
    probes: MixedProbes | None


def prepare(
    sources: Iterable[str] | Corpus,
    *,
    tokenizer: str | Tokenizer = "bytes",
    folder: Path,
    whole: bool = False,
    probes: Mixture | None = None,
) -> Text:
    """Split, tokenize and store a text in `folder`, or open it where it is there from the same text and tokenizer.

    No source means the standard library, and the folder of a selection means the text that it was made from without the
    train documents that it left out. `tokenizer` is `bytes`, `bpe:N`, the path of a tokenizer.json, or a Tokenizer.
    `whole` puts everything into the test split, to evaluate on. `probes` are mixed into the train split and nowhere
    else. The corpus is read several times and never held whole.

    A few bad lines are left out; the facts name them.

    Raises: UserError for bad text (empty, tiny, binary, wrongly encoded, unreadable, missing), a tokenizer that loses
    text, and a folder that cannot be written.
    """
    made = tokenizer if isinstance(tokenizer, Tokenizer) else named_tokenizer(tokenizer)
    named = () if isinstance(sources, Corpus) else tuple(map(str, sources))
    selection = None if whole else open_selection(named)
    corpus = sources if isinstance(sources, Corpus) else selection.corpus if selection else open_corpus(named)
    reading = read_corpus(corpus, uncut=whole)
    if selection is not None:
        selection.require_same(reading)
    setting = made.digest if made else str(tokenizer)
    asked = {"protocol": PROTOCOL, "text": reading.digest, "tokenizer": setting, "whole": whole}
    more = {"probes": asdict(probes)} if probes else {}
    request = store.digest(asked | more | ({"selection": selection.digest} if selection else {}))
    if (ready := _opened(folder, request)) is not None:
        return ready
    splitting = split_reading(reading, whole)
    if selection is not None:
        splitting = selection.applied(splitting)
    if made is None:
        made = train_bpe(_sample(reading, splitting.splits), bpe_size(str(tokenizer)) or 0)
    with store.lock(folder):
        for left in folder.glob(".*.partial"):  # of a process that was killed
            left.unlink()
        made.save(folder / "tokenizer")
        written = _write(reading, splitting.splits, made, folder, probes, whole)
        write(folder / TEXT_FILE, _facts(request, reading, splitting, made, written))
    return open_text(folder, verify=False)


def _facts(request: str, reading: Reading, splitting: Splitting, tokenizer: Tokenizer, written: Written) -> TextFile:
    return TextFile(
        request=request,
        tokenizer=TokenizerName(name=tokenizer.name, digest=tokenizer.digest),
        sources=reading.corpus.sources,
        source_digest=reading.digest,
        python_version=reading.corpus.python_version,
        files_left_out=reading.corpus.left_out_files,
        split_by=splitting.by,
        documents_cut=len(reading.cut),
        duplicates_removed=splitting.removed,
        duplicates_in_train=_duplicates_in_train(reading, splitting.splits),
        splits=written.splits,
        manifest=written.manifest,
        overlap=written.overlap,
        documents_changed_by_tokenizer=written.changed,
        skipped=SkippedLines(lines=reading.bad.count, named=tuple(reading.bad.named)),
        probes=written.probes,
        selection=splitting.selection,
        digest=_digest(written.splits, tokenizer),
    )


def _digest(splits: SplitFiles, tokenizer: Tokenizer) -> str:
    return store.digest({"tokenizer": tokenizer.digest, **{split: splits.of(split).sha256 for split in SPLITS}})


def _duplicates_in_train(reading: Reading, splits: list[str | None]) -> int:
    """Train documents that equal an earlier one apart from white space; they stay, so they repeat more often."""
    texts = [item.fingerprint for item, split in zip(reading.entries, splits, strict=True) if split == "train"]
    return len(texts) - len(set(texts))


def _sample(reading: Reading, splits: list[str | None]) -> Iterator[bytes]:
    """The train split that a BPE learns from; where it is very large, evenly spread documents of it."""
    sizes = np.array([item.size * (split == "train") for item, split in zip(reading.entries, splits, strict=True)])
    every = max(1, -(-int(sizes.sum()) // BPE_MOST_BYTES))
    number = 0
    for document, split in zip(reading.again(), splits, strict=True):
        if split == "train":
            number += 1
            if number % every == 0:
                yield document.text


def _write(
    reading: Reading,
    splits: list[str | None],
    tokenizer: Tokenizer,
    folder: Path,
    probes: Mixture | None,
    whole: bool,
) -> Written:
    """Write the shards and the manifest."""
    overlap, manifest = _held_out_windows(reading, splits), ManifestWriter(folder)
    changed: list[str] = []
    with contextlib.ExitStack() as stack:
        shards = {split: stack.enter_context(Shard(folder, split, tokenizer)) for split in SPLITS}
        mixing = Mixing(probes, shards["train"], manifest) if probes else None
        for document, split in zip(reading.again(), splits, strict=True):
            if split is None:
                continue
            overlap.look_through(split, document.text)
            added = shards[split].add(document.text)
            manifest.add(row_of(document, split, added))
            if not added.kept:
                changed.append(document.name)
            if mixing:
                mixing.catch_up()
        _refuse_loss(changed, shards["validation"].documents + shards["test"].documents, tokenizer, whole)
        return Written(
            splits=SplitFiles(**{split: shard.close() for split, shard in shards.items()}),
            manifest=manifest.close(),
            overlap=overlap.record(),
            changed=len(changed),
            probes=mixing and mixing.record(),
        )


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


def _refuse_loss(changed: list[str], held_out: int, tokenizer: Tokenizer, whole: bool) -> None:
    ways = "score it on questions, with <tasks>" if whole else "use bytes, bpe:N, or a byte-level tokenizer"
    if len(changed) > LOST_SHARE * held_out:
        raise UserError(
            f"tokenizer {tokenizer.name}: {len(changed)} of {held_out} held-out documents differ after encoding and "
            f"decoding, the first is {changed[0]}",
            hint=f"bits per byte would be wrong: {ways}",
        )


def _opened(folder: Path, request: str) -> Text | None:
    """What an earlier `prepare` left for the same request; None where it is missing, damaged or of another text."""
    found = try_open_text(folder)  # what is damaged is made again rather than believed
    return None if isinstance(found, Fault) or found.facts.request != request else found


def open_text(folder: Path, *, verify: bool = True) -> Text:
    """A prepared text; `verify` reads every shard and compares its digest, else only sizes are compared.

    Raises: UserError naming the file that is missing, truncated or edited.
    """
    found = try_open_text(folder, verify=verify)
    if isinstance(found, Fault):
        raise found.error()
    return found


def try_open_text(folder: Path, *, verify: bool = True) -> Text | Fault:
    """What `open_text` gives, or why it cannot."""
    facts = try_read(folder / TEXT_FILE, TextFile)
    if isinstance(facts, Fault):
        return facts
    tokenizer = try_load_tokenizer(folder / "tokenizer")
    if isinstance(tokenizer, Fault):
        return tokenizer
    if tokenizer.digest != facts.tokenizer.digest:
        return Fault(f"{folder / 'tokenizer'}: not the tokenizer that made this text", MAKE_AGAIN)
    shards, lengths = _shards(folder, facts.splits, tokenizer), _lengths(folder, facts.splits)
    stored = facts.manifest
    manifest = () if stored is None else (Stored(folder / MANIFEST, stored.sha256, stored.bytes),)
    for file in (*shards.values(), *lengths.values(), *manifest):
        if (fault := file.fault(verify)) is not None:
            return fault
    return Text(
        folder=folder,
        tokenizer=tokenizer,
        facts=facts,
        arrays={split: file.mapped() for split, file in shards.items()},
        lengths={split: file.mapped() for split, file in lengths.items()},
    )


def _shards(folder: Path, splits: SplitFiles, tokenizer: Tokenizer) -> dict[str, Stored]:
    stated = {split: splits.of(split) for split in SPLITS}
    return {
        split: Stored(folder / f"{split}.bin", shard.sha256, shard.tokens, tokenizer.dtype)
        for split, shard in stated.items()
    }


def _lengths(folder: Path, splits: SplitFiles) -> dict[str, Stored]:
    stated = {split: splits.of(split) for split in SPLITS}
    return {
        split: Stored(folder / f"{split}.lengths.bin", shard.lengths_sha256, shard.tokens, LENGTH)
        for split, shard in stated.items()
        if shard.lengths_sha256 is not None
    }
