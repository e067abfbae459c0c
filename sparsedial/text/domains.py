"""The domains of a text: the sub-folders of the one folder that is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sparsedial.records.text import SkippedLines
from sparsedial.text.bad_lines import NAMED
from sparsedial.text.corpus import Corpus, File, open_corpus
from sparsedial.text.prepare import Text, prepare
from sparsedial.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Domains:
    """Texts to evaluate on, all of each in its test split."""

    texts: Mapping[str, Text]  # by the name of the domain
    split: bool  # whether they are domains: else there is one text

    @property
    def tokens(self) -> int:
        """Of all of them."""
        return sum(len(text.tokens("test")) for text in self.texts.values())

    @property
    def skipped(self) -> SkippedLines:
        """The lines of all of them that were left out."""
        each = [text.facts.skipped for text in self.texts.values()]
        named = [line for skipped in each for line in skipped.named]
        return SkippedLines(lines=sum(skipped.lines for skipped in each), named=tuple(named[:NAMED]))


def prepare_domains(sources: Sequence[str], *, tokenizer: Tokenizer, folder: Path) -> Domains:
    """Prepare each domain of a text in a folder of its own below `folder`, to evaluate on.

    Raises: UserError as `prepare`, and for a domain without text.
    """
    corpus = open_corpus(tuple(sources))
    parts = domains_of(corpus)
    texts = {
        name: prepare(part, tokenizer=tokenizer, folder=folder / str(number), whole=True)
        for number, (name, part) in enumerate((parts or {"": corpus}).items())
    }
    return Domains(texts=texts, split=parts is not None)


def domains_of(corpus: Corpus) -> dict[str, Corpus] | None:
    """The part of a corpus in each sub-folder of its one folder; None where it has several sources or no sub-folder.

    Files that are in no sub-folder are a domain under the folder's own name.
    """
    if len(corpus.sources) != 1 or not (folder := Path(corpus.sources[0]).expanduser()).is_dir():
        return None
    found: dict[str | None, list[File]] = {}
    for file in corpus.files:
        names = file.path.relative_to(folder).parts
        found.setdefault(names[0] if len(names) > 1 else None, []).append(file)
    if found.keys() == {None}:
        return None
    own = folder.resolve().name
    while own in found:
        own += "/"  # a sub-folder of the folder's name
    return {
        own if name is None else name: replace(corpus, files=tuple(files), sources=(str(folder / (name or "")),))
        for name, files in sorted(found.items(), key=lambda item: item[0] or "")
    }
