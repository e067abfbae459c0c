"""The documents of a corpus, file by file: long ones in parts, bad lines left out and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sparsedial.text.bad_lines import BadLines, FileLines, NotUtf8, good_lines
from sparsedial.text.corpus import Corpus, File
from sparsedial.text.files import blocks_of, suffix_of
from sparsedial.text.formats import READERS, refuse_other_formats

PART_BYTES = 2**20  # the most that is held of a plain file at once; a longer one comes in parts


@dataclass(frozen=True, kw_only=True)
class Document:
    """One piece of text; documents of one group are always in the same split."""

    id: str  # unique in the corpus
    name: str  # the split depends on it; files of the same name in two folders share it
    source: str  # the file it came from
    group: str
    text: bytes  # UTF-8, not blank, without NUL


def documents(corpus: Corpus, cut: Mapping[str, int] | None = None, bad: BadLines | None = None) -> Iterator[Document]:
    """Every document of the corpus in order; blank ones are skipped.

    `cut` maps a group to the size in bytes of the contiguous parts that it is cut into; each becomes a group. A file's
    bad lines are left out and added to `bad`. Standard-library files in other encodings than UTF-8 are skipped whole:
    those are test fixtures.

    Raises: UserError naming the file, and the line or byte, of text that is binary, not UTF-8, truncated or unreadable.
    """
    built_in = corpus.python_version is not None
    for file in corpus.files:
        lines = FileLines(strict=built_in)
        try:
            yield from _documents_of(file, cut or {}, lines)
        except NotUtf8:
            if not built_in:
                raise
        lines.close()
        if bad is not None:
            bad.add(lines)


def _documents_of(file: File, cut: Mapping[str, int], lines: FileLines) -> Iterator[Document]:
    refuse_other_formats(file.path)
    reader = READERS.get(suffix_of(file.path))
    if reader is None:
        yield from _plain(file, cut, lines)
        return
    for piece in reader(file.path, lines):
        yield from _parts(file, piece.tail, iter([piece.text]), cut)


def _plain(file: File, cut: Mapping[str, int], lines: FileLines) -> Iterator[Document]:
    offset, end = 0, b"\n"

    def good(part: bytes) -> bytes:
        nonlocal offset, end
        place, offset, end = offset, offset + len(part), part[-1:]
        return good_lines(part, file.path, place, lines)

    yield from _parts(file, "", blocks_of(file.path), cut, good)
    lines.read += end != b"\n"


def _parts(
    file: File, line: str, blocks: Iterator[bytes], cut: Mapping[str, int], good: Callable[[bytes], bytes] = bytes
) -> Iterator[Document]:
    group = file.group or file.name + line
    for number, part in enumerate(split_parts(blocks, min(cut.get(group, PART_BYTES), PART_BYTES))):
        text = good(part)
        if text.strip():
            tail = f"{line}#{number}" if number else line
            yield Document(
                id=file.source + tail,
                name=file.name + tail,
                source=file.source,
                group=f"{file.name}{line}#{number}" if group in cut else group,
                text=text,
            )


def split_parts(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in parts of about `size`, cut after a paragraph, else a line, else a word, else a character.

    A part is between `size` / 2 and `size` long; the last may be shorter.
    """
    held = b""
    for block in blocks:
        held += block
        while len(held) > size:
            end = _cut_position(held, size)
            yield held[:end]
            held = held[end:]
    if held:
        yield held


def _cut_position(held: bytes, size: int) -> int:
    for mark in (b"\n\n", b"\n", b" "):
        position = held.rfind(mark, size // 2, size)
        if position >= 0:
            return position + len(mark)
    end = size
    while end > max(1, size - 3) and held[end] & 0xC0 == 0x80:  # inside a character of UTF-8
        end -= 1
    return end
