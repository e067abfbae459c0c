"""Which files are read as text, and how what is no file is refused."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsedial.errors import UserError
from sparsedial.text.corpus import open_corpus, standard_library
from sparsedial.text.documents import Document, documents

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


def test_what_is_missing_no_file_unreadable_or_without_text_is_refused(folder_of: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        read(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: not a file"):
        read(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="loop: cannot be read"):
        read(tmp_path / "loop")
    with pytest.raises(UserError, match="no text in its 1 file"):
        read(folder_of({"x.bin": b"x"}))


@pytest.mark.parametrize("suffix", ["ndjson", "jl", "json"])
def test_a_folder_of_json_lines_under_another_ending_is_read(folder_of: Write, suffix: str) -> None:
    folder = folder_of({f"a.{suffix}": '{"text": "one"}\n', f"b.{suffix}.gz": gzip.compress(b'{"text": "two"}')})
    assert [document.text for document in read(folder)] == [b"one", b"two"]


def test_tables_and_json_beside_text_are_left_out_as_before(folder_of: Write) -> None:
    folder = folder_of({"a.txt": "one", "b.json": '{"text": "two"}', "c.csv": "text\nthree\n", "d.ndjson": "{"})
    assert [document.text for document in read(folder)] == [b"one"]
    assert open_corpus((str(folder),)).left_out_files == 3


def test_the_standard_library_is_grouped_by_module_without_tests_and_installed_packages() -> None:
    files = standard_library().files
    groups = {file.group for file in files}
    assert {"asyncio", "json", "argparse"} <= groups
    assert not groups & {"test", "idlelib", "encodings", "pydoc_data", "site-packages"}
    assert not any("site-packages" in file.name or file.name.startswith("_sysconfigdata") for file in files)
    assert {file.name for file in files if file.group == "json"} >= {"json/__init__.py", "json/decoder.py"}
    assert sum(file.path.stat().st_size for file in files) > 5e6
    assert standard_library().python_version
