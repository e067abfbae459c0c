"""What is read as text, and how what is not text is refused."""

from __future__ import annotations

import codecs
import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sparsedial.errors import UserError
from sparsedial.text import corpus
from sparsedial.text.corpus import Document, documents, open_corpus, split_parts, standard_library

Write = Callable[..., Path]


def read(*sources: Path | str) -> list[Document]:
    return list(documents(open_corpus(tuple(map(str, sources)))))


def test_a_folder_gives_every_text_file_in_the_order_of_names_and_counts_the_others(folder_of: Write) -> None:
    folder = folder_of(
        {
            "b.md": "two",
            "a/x.py": "one",
            "c.rst.gz": gzip.compress(b"three"),
            "d.jsonl": '{"text": "four"}\n\n{"text": "five", "id": 1}\n',
            "picture.png": b"\x89PNG",
            ".git/config.txt": "hidden",
            "__pycache__/x.txt": "compiled",
        }
    )
    assert [(document.name, document.text) for document in read(folder)] == [
        ("a/x.py", b"one"),
        ("b.md", b"two"),
        ("c.rst", b"three"),
        ("d.jsonl:1", b"four"),
        ("d.jsonl:3", b"five"),
    ]
    assert open_corpus((str(folder),)).left_out_files == 1


def test_names_stay_the_same_when_a_folder_moves_or_a_file_is_packed(folder_of: Write) -> None:
    plain = folder_of({"a/x.txt": "one"}, name="here")
    packed = folder_of({"a/x.txt.gz": gzip.compress(b"one")}, name="there")
    assert read(plain) == read(packed)
    assert [document.name for document in read(plain / "a" / "x.txt")] == ["x.txt"]


def test_blank_documents_and_the_byte_order_mark_are_not_text(folder_of: Write) -> None:
    folder = folder_of({"a.txt": " \n", "b.txt": codecs.BOM_UTF8 + b"word", "c.txt": codecs.BOM_UTF8})
    assert [document.text for document in read(folder)] == [b"word"]


def test_a_file_longer_than_a_part_comes_in_parts_of_one_group(
    folder_of: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "PART_BYTES", 1000)
    monkeypatch.setattr(corpus, "BLOCK_BYTES", 300)
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
    with pytest.raises(UserError, match=r"latin\.txt: not UTF-8: byte 0xe9 at offset 3"):
        read(folder)


def test_the_offset_of_a_wrong_byte_counts_from_the_start_of_the_file(
    folder_of: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "PART_BYTES", 100)
    with pytest.raises(UserError, match=r"at offset 1234$"):
        read(folder_of({"long.txt": b"word " * 246 + b"abcd\xff rest" * 2}))


def test_utf_16_and_binary_files_are_refused_as_binary(folder_of: Write) -> None:
    with pytest.raises(UserError, match="binary, not text: a NUL byte at offset 1"):
        read(folder_of({"wide.txt": "wide".encode("utf-16-le")}))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"text": "cut', "line 2: not JSON"),
        (b'{"content": "x"}', "line 2: no field 'text'"),
        (b'["text"]', "line 2: no field 'text'"),
        (b'{"text": 5}', "line 2: no field 'text'"),
        (b'{"text": "a\\u0000b"}', "line 2: binary"),
        (b'{"text": "ab\\ud800"}', "line 2: character 2"),
        (b'{"text": "\xe9"}', "line 2: not UTF-8: byte 0xe9 at offset 10"),
    ],
)
def test_a_bad_line_of_json_is_refused_with_its_number(folder_of: Write, line: bytes, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        read(folder_of({"d.jsonl": json.dumps({"text": "ok"}).encode() + b"\n" + line + b"\n"}))


@pytest.mark.parametrize("data", [gzip.compress(b"word " * 999)[:-20], b"plain text", b"\x1f\x8b\x08\x00" + b"x" * 40])
def test_damaged_gzip_is_refused(folder_of: Write, data: bytes) -> None:
    with pytest.raises(UserError, match=r"x\.txt\.gz: not whole gzip data"):
        read(folder_of({"x.txt.gz": data}))


def test_what_is_missing_no_file_unreadable_or_without_text_is_refused(folder_of: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        read(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: not a file"):
        read(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="loop: cannot be read"):
        read(tmp_path / "loop")
    with pytest.raises(UserError, match="no text in its 1 files"):
        read(folder_of({"x.bin": b"x"}))


def test_the_standard_library_is_grouped_by_module_without_tests_and_installed_packages() -> None:
    files = standard_library().files
    groups = {file.group for file in files}
    assert {"asyncio", "json", "argparse"} <= groups
    assert not groups & {"test", "idlelib", "encodings", "pydoc_data", "site-packages"}
    assert not any("site-packages" in file.name or file.name.startswith("_sysconfigdata") for file in files)
    assert {file.name for file in files if file.group == "json"} >= {"json/__init__.py", "json/decoder.py"}
    assert sum(file.path.stat().st_size for file in files) > 5e6
    assert standard_library().python_version
