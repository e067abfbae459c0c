"""What a corpus's files hold, in parts; a few bad lines are left out and named, many are refused."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sparsedial.errors import UserError
from sparsedial.text import documents as documents_module
from sparsedial.text import files
from sparsedial.text.bad_lines import BadLines
from sparsedial.text.corpus import open_corpus
from sparsedial.text.documents import Document, documents, split_parts
from sparsedial.text.prepare import prepare

from .conftest import prose

Write = Callable[..., Path]


def read(*sources: Path | str, bad: BadLines | None = None) -> list[Document]:
    return list(documents(open_corpus(tuple(map(str, sources))), bad=bad))


def test_blank_documents_and_the_byte_order_mark_are_not_text(folder_of: Write) -> None:
    folder = folder_of({"a.txt": " \n", "b.txt": codecs.BOM_UTF8 + b"word", "c.txt": codecs.BOM_UTF8})
    assert [document.text for document in read(folder)] == [b"word"]


def test_a_file_longer_than_a_part_comes_in_parts_of_one_group(
    folder_of: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents_module, "PART_BYTES", 1000)
    monkeypatch.setattr(files, "BLOCK_BYTES", 300)
    text = "\n\n".join(f"paragraph {number} " + "été " * 20 for number in range(50))
    found = read(folder_of({"long.txt": text}))
    assert "".join(document.text.decode() for document in found) == text
    assert len(found) > 5
    assert {document.group for document in found} == {"long.txt"}
    assert len({document.name for document in found}) == len(found)


@pytest.mark.parametrize(
    ("text", "end"),
    [("abc\n\n" * 30, b"\n\n"), ("abc\n" * 30, b"\n"), ("abcd " * 30, b" "), ("文é" * 50, b"")],
    ids=["paragraphs", "lines", "words", "characters"],
)
def test_parts_are_cut_at_the_largest_boundary_there_is(text: str, end: bytes) -> None:
    data = text.encode()

    def blocks() -> Iterator[bytes]:
        yield from (data[place : place + 7] for place in range(0, len(data), 7))

    parts = list(split_parts(blocks(), 41))
    assert b"".join(parts) == data
    assert len(parts) > 2
    for part in parts[:-1]:
        assert part.endswith(end)
        assert 20 <= len(part) <= 42
        part.decode()


def test_a_wrong_encoding_is_refused_with_file_and_offset(folder_of: Write) -> None:
    folder = folder_of({"good.txt": "fine", "latin.txt": b"caf\xe9 au lait"})
    with pytest.raises(UserError, match=r"latin\.txt, line 1: not UTF-8: byte 0xe9 at offset 3"):
        read(folder)


def test_the_offset_of_a_wrong_byte_counts_from_the_start_of_the_file(
    folder_of: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents_module, "PART_BYTES", 100)
    with pytest.raises(UserError, match=r"at offset 1234$"):
        read(folder_of({"long.txt": b"word " * 246 + b"abcd\xff rest" * 2}))


GOOD = b"a good line\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"caf\xe9\n", "not UTF-8: byte 0xe9 at offset 1803"),
        (b"\0\0\0\n", "binary, not text: a NUL byte at offset 1800"),
    ],
)
def test_one_bad_line_of_many_is_left_out_and_named(folder_of: Write, line: bytes, problem: str) -> None:
    bad = BadLines()
    (document,) = read(folder_of({"a.txt": GOOD * 150 + line + GOOD * 50}), bad=bad)
    assert document.text == GOOD * 200
    assert bad.count == 1
    assert bad.named[0].endswith(f"a.txt, line 151: {problem}")


def test_bad_lines_are_numbered_over_all_parts_of_a_file(folder_of: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_module, "PART_BYTES", 100)
    bad = BadLines()
    lines = [b"line %d\n" % number for number in range(1, 1001)]
    lines[499] = b"b\xffd\n"
    lines[899] = b"b\0d\n"
    found = read(folder_of({"a.txt": b"".join(lines)}), bad=bad)
    assert b"".join(document.text for document in found) == b"".join(line for line in lines if line[:1] != b"b")
    assert [name.partition(", ")[2].partition(":")[0] for name in bad.named] == ["line 500", "line 900"]


def test_more_than_the_stated_share_of_bad_lines_is_refused_with_the_first(folder_of: Write) -> None:
    with pytest.raises(UserError, match=r"a\.txt, line 101: not UTF-8.*; 2 of 102 lines are bad: more than 1% are not"):
        read(folder_of({"a.txt": GOOD * 100 + b"\xff\n\xff"}))


def test_a_binary_file_is_not_read_to_its_end(folder_of: Write) -> None:
    with pytest.raises(UserError, match=r"line 1: binary, not text: a NUL byte at offset 0; .* was not read further"):
        read(folder_of({"a.bin.txt": b"\0\n" * 10_000}))


def test_what_was_left_out_stands_in_the_record_of_the_text(folder_of: Write, tmp_path: Path) -> None:
    texts: dict[str, str | bytes] = {f"{number:02}.txt": prose(number, 15) for number in range(40)}
    clean = prepare((str(folder_of(texts)),), folder=tmp_path / "clean")
    assert clean.facts.skipped.lines == 0
    texts["07.txt"] = str(texts["07.txt"]).encode() + GOOD * 900 + b"\xff\n" * 7
    stained = prepare((str(folder_of(texts)),), folder=tmp_path / "stained")
    assert stained.facts.skipped.lines == 7
    assert [name.partition(": ")[0].rpartition(", ")[2] for name in stained.facts.skipped.named] == [
        f"line {929 + number}" for number in range(5)
    ]
