"""JSON lines under every ending, tables, UTF-16; what is another format is refused rather than read as prose."""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars
import pytest

from sparsedial.errors import UserError
from sparsedial.text import formats
from sparsedial.text.bad_lines import BadLines
from sparsedial.text.corpus import open_corpus
from sparsedial.text.documents import documents

Write = Callable[..., Path]
TEXTS = ["one, two", 'a "quoted" one\nover two lines', "été 文字", "  "]


def texts(*sources: Path, bad: BadLines | None = None) -> list[tuple[str, str]]:
    found = documents(open_corpus(tuple(map(str, sources))), bad=bad)
    return [(document.name, document.text.decode()) for document in found]


def numbered(name: str) -> list[tuple[str, str]]:
    return [(f"{name}:{number}", text) for number, text in enumerate(TEXTS, start=1) if text.strip()]


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".jl", ".json", ".JSON"])
@pytest.mark.parametrize("packed", [False, True])
def test_json_lines_are_read_under_each_of_their_endings(folder_of: Write, suffix: str, packed: bool) -> None:
    data = "".join(json.dumps({"id": 1, "text": text}) + "\r\n" for text in TEXTS).encode()
    name = "d" + suffix
    folder = folder_of({name + ".gz": gzip.compress(data, mtime=0)} if packed else {name: data})
    assert texts(next(folder.iterdir())) == numbered(name)


def test_a_json_file_may_be_one_list_of_objects_or_one_object(folder_of: Write) -> None:
    records = [{"text": text} for text in TEXTS]
    folder = folder_of(
        {"list.json": json.dumps(records, indent=1), "flat.json": json.dumps(records), "one.json": '{\n"text": "x"\n}'}
    )
    assert texts(folder / "list.json") == numbered("list.json")
    assert texts(folder / "flat.json") == numbered("flat.json")
    assert texts(folder / "one.json") == [("one.json", "x")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[1, 2", "line 1: not JSON"),
        ('[{"text": 1}]', "entry 1: no field 'text'"),
        ('{\n"data": []}', "one.json: no field 'text'"),
        ('"text"', "line 1: no field 'text'"),
        ("[" * 10_000, "line 1: nested too deeply"),
    ],
)
def test_other_json_is_refused_with_its_place(folder_of: Write, content: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        texts(folder_of({"one.json": content}) / "one.json")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"text": "cut', "line 2: not JSON"),
        (b'{"text": "x", "deep": ' + b"[" * 10_000, "line 2: nested too deeply"),
        (b"\0" * 12, "line 2: not "),
        (b'{"content": "x"}', "line 2: no field 'text'"),
        (b'["text"]', "line 2: no field 'text'"),
        (b'{"text": 5}', "line 2: no field 'text'"),
        (b'{"text": "a\\u0000b"}', "line 2: binary"),
        (b'{"text": "ab\\ud800"}', "line 2: character 2"),
        (b'{"text": "\xe9"}', "line 2: not UTF-8: byte 0xe9 at offset 10"),
    ],
)
def test_a_bad_line_of_few_is_refused_with_its_number(folder_of: Write, line: bytes, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        texts(folder_of({"d.jsonl": json.dumps({"text": "ok"}).encode() + b"\n" + line + b"\n"}))


def test_a_bad_line_of_many_is_left_out(folder_of: Write) -> None:
    good = b'{"text": "ok"}\n'
    bad = BadLines()
    found = texts(folder_of({"d.jsonl": good * 99 + b'{"text": "a\\u0000b"}\n' + good * 99}), bad=bad)
    assert len(found) == 198
    assert found[99][0] == "d.jsonl:101"
    assert bad.count == 1
    assert "d.jsonl, line 100: binary, not text" in bad.named[0]


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".csv", ";"), (".tsv", "\t")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_is_read_from_its_column_of_texts(folder_of: Write, suffix: str, separator: str, encoding: str) -> None:
    rows = ['"' + text.replace('"', '""') + '"' for text in TEXTS]
    data = "\r\n".join(separator.join(cells) for cells in [("id", "Text"), *((str(len(row)), row) for row in rows)])
    folder = folder_of({"t" + suffix: data.encode(encoding)})
    assert texts(folder / f"t{suffix}") == numbered("t" + suffix)


def test_the_lines_that_an_open_quote_swallows_are_lost_lines(folder_of: Write) -> None:
    rows = [f"{number},a line of text\n" for number in range(1000)]
    rows[150] = '150,"a quote that no writer closed\n'
    with pytest.raises(UserError, match=r"row 151: not CSV .* 850 of 1,000 lines are bad"):
        texts(folder_of({"t.csv": "id,text\n" + "".join(rows)}))
    rows[157] = '157,"another one\n'  # which closes the first
    bad = BadLines()
    assert len(texts(folder_of({"t.csv": "id,text\n" + "".join(rows)}), bad=bad)) == 992
    assert (bad.count, len(bad.named)) == (8, 1)


def test_parquet_is_read_from_its_column_of_texts_batch_by_batch(
    folder_of: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "ROWS", 3)
    folder = folder_of({"other.bin": "x"})
    polars.DataFrame({"id": [1, 2, 3, 4], "text": TEXTS}).write_parquet(folder / "t.parquet")
    assert texts(folder / "t.parquet") == numbered("t.parquet")


def test_a_table_without_texts_is_refused(folder_of: Write) -> None:
    folder = folder_of({"a.csv": "id,content\n1,x\n", "b.parquet": b"PAR1 not", "short.csv": "id,text\n1\n"})
    polars.DataFrame({"text": [1, 2]}).write_parquet(folder / "c.parquet")
    polars.DataFrame({"content": ["x"]}).write_parquet(folder / "d.parquet")
    polars.DataFrame({"text": ["x", None]}).write_parquet(folder / "e.parquet")
    for name, problem in (
        ("a.csv", "no column 'text' among 'id,content'"),
        ("short.csv", "row 1: 1 columns, so 'text' is missing"),
        ("b.parquet", "not readable as Parquet"),
        ("c.parquet", "its column 'text' is Int64, not String"),
        ("d.parquet", "no column 'text'"),
        ("e.parquet", "row 2: no field 'text'"),
    ):
        with pytest.raises(UserError, match=problem):
            texts(folder / name)


@pytest.mark.parametrize("name", ["page.html", "page.HTM", "book.pdf", "book.epub", "all.zip", "all.tar.gz", "a.arrow"])
def test_another_format_is_refused_and_not_read_as_prose(folder_of: Write, name: str) -> None:
    with pytest.raises(UserError, match="files are not read as text"):
        texts(folder_of({name: "<p>words that look like text"}) / name)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("packed", [False, True])
def test_utf_16_and_32_are_read_where_their_mark_says_so(folder_of: Write, encoding: str, packed: bool) -> None:
    def coded(text: str) -> bytes:
        data = f"\ufeff{text}".encode(encoding)
        return gzip.compress(data, mtime=0) if packed else data

    ending = ".gz" if packed else ""
    plain, lines = "été\u2028 文字 🙂\r\nnext", "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    folder = folder_of({"a.txt" + ending: coded(plain), "b.jsonl" + ending: coded(lines)})
    assert texts(folder) == [("a.txt", plain), *numbered("b.jsonl")]


def test_utf_16_that_is_cut_short_or_has_no_mark_is_refused_with_a_way_out(folder_of: Write) -> None:
    whole = codecs.BOM_UTF16_LE + "wide".encode("utf-16-le")
    with pytest.raises(UserError, match="begins with the mark of UTF-16"):
        texts(folder_of({"wide.txt": whole[:-1]}, "cut"))
    with pytest.raises(UserError, match="binary, not text: a NUL byte at offset 1") as error:
        texts(folder_of({"wide.txt": whole[2:]}, "bare"))
    assert "iconv -f utf-16le" in str(error.value.hint)


@pytest.mark.parametrize(
    "data", [gzip.compress(b"word " * 999, mtime=0)[:-20], b"plain text", b"\x1f\x8b\x08\x00" + b"x" * 40]
)
def test_damaged_gzip_is_refused(folder_of: Write, data: bytes) -> None:
    with pytest.raises(UserError, match=r"x\.txt\.gz: not whole gzip data"):
        texts(folder_of({"x.txt.gz": data}))
