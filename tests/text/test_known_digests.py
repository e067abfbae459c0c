"""Texts that earlier versions read keep their digests: the studies of users are bound to them."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path

import pytest

from sparsedial.text.prepare import prepare

from .conftest import prose


def written(folder: Path) -> dict[str, Path]:
    """A folder of every kind of file that was read, a book, and JSON lines."""
    mixed = folder / "mixed"
    mixed.mkdir()
    for number in range(40):
        (mixed / f"{number:02}.txt").write_text(prose(number, 8))
    (mixed / "marked.md").write_bytes(codecs.BOM_UTF8 + prose(101, 4).encode())
    (mixed / "code.py").write_text("print('été')\r\n" * 40)
    (mixed / "packed.rst.gz").write_bytes(gzip.compress(prose(102, 9).encode()))
    lines = [
        json.dumps({"text": prose(200 + number, 3), "id": number}, ensure_ascii=number % 2 == 0) for number in range(60)
    ]
    (mixed / "lines.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n\n".join(lines).encode())
    (mixed / "left.json").write_text('{"text": "left out"}')
    (mixed / "left.csv").write_text("text\nleft out\n")
    (folder / "book").write_text(prose(7, 200))
    (folder / "lines.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return {"mixed": mixed, "book": folder / "book", "lines": folder / "lines.jsonl.gz"}


@pytest.mark.parametrize(
    ("name", "digest", "source"),
    [
        ("mixed", "fd9103a613f94618", "bfc6696829c510af"),
        ("book", "8b8aa0c55509ed60", "e538d9ddfaaa9dce"),
        ("lines", "558f100a058a8936", "7b895a934031d01d"),
    ],
)
def test_a_text_that_was_read_before_keeps_its_digests(tmp_path: Path, name: str, digest: str, source: str) -> None:
    text = prepare((str(written(tmp_path)[name]),), folder=tmp_path / "text")
    assert (text.digest[:16], text.facts.source_digest[:16]) == (digest, source)
