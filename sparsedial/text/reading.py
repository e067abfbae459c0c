"""One reading of a corpus: what is kept of it, so that it can be read again and known to be the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sparsedial import store
from sparsedial.errors import UserError
from sparsedial.text.bad_lines import BadLines
from sparsedial.text.corpus import Corpus
from sparsedial.text.documents import Document, documents
from sparsedial.text.splits import Entry, cuts, entry, is_same
from sparsedial.units import count_words

LEAST_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one reading of a corpus found: enough to read it again and know that it is the same."""

    corpus: Corpus
    cut: Mapping[str, int]
    entries: tuple[Entry, ...]
    digest: str  # of names and texts
    bad: BadLines = field(default_factory=BadLines)

    @property
    def bytes(self) -> int:
        """Of all texts."""
        return sum(item.size for item in self.entries)

    @property
    def grouped(self) -> bool:
        """Whether the corpus itself says which documents belong together."""
        return any(file.group for file in self.corpus.files)

    @property
    def unit(self) -> str:
        """What is kept in one split."""
        return "module" if self.grouped else "part of a document" if self.cut else "document"

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


def read_corpus(corpus: Corpus, *, uncut: bool = False, cut: Mapping[str, int] | None = None) -> Reading:
    """Read a corpus through; once more with very long documents `cut`, where there are such and not `uncut`.

    Raises: UserError where it is empty or, unless `uncut`, too small to hold some of it out.
    """
    entries: list[Entry] = []
    together, bad = hashlib.sha256(), BadLines()
    for document in documents(corpus, cut, bad):
        entries.append(entry(document))
        together.update(store.digest([document.name, document.group, len(document.text)]).encode())
        together.update(document.text)
    if not entries:
        named = ", ".join(corpus.sources) or "the standard library"
        raise UserError(f"{named}: no text in {count_words(len(corpus.files), 'file')}")
    reading = Reading(corpus=corpus, cut=cut or {}, entries=tuple(entries), digest=together.hexdigest(), bad=bad)
    if not uncut and reading.bytes < LEAST_BYTES:
        raise UserError(
            f"{', '.join(corpus.sources)}: {reading.bytes} bytes are too few to train on and to hold some out",
            hint=f"at least {LEAST_BYTES}",
        )
    if cut is None and not uncut and not reading.grouped and (found := cuts(entries)):
        return read_corpus(corpus, cut=found)
    return reading
