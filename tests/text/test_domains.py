"""Each sub-folder of the one folder that is named is a domain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.text.corpus import open_corpus
from sparsedial.text.domains import domains_of, prepare_domains
from sparsedial.text.prepare import prepare
from sparsedial.text.tokenizer import byte_tokenizer

Write = Callable[..., Path]


def names(*sources: Path) -> dict[str, list[str]] | None:
    found = domains_of(open_corpus(tuple(map(str, sources))))
    return found and {name: [file.name for file in corpus.files] for name, corpus in found.items()}


def test_each_sub_folder_is_a_domain_with_all_below_it(folder_of: Write) -> None:
    folder = folder_of({"b/1.txt": "x", "b/deep/2.txt": "x", "a/1.txt": "x", ".c/1.txt": "x"})
    assert names(folder) == {"a": ["a/1.txt"], "b": ["b/1.txt", "b/deep/2.txt"]}


def test_files_in_the_folder_itself_are_a_domain_of_its_name(folder_of: Write) -> None:
    assert names(folder_of({"a/1.txt": "x", "1.txt": "x"}, "mine")) == {"mine": ["1.txt"], "a": ["a/1.txt"]}
    assert names(folder_of({"same/1.txt": "x", "1.txt": "x"}, "same")) == {"same/": ["1.txt"], "same": ["same/1.txt"]}


def test_a_file_a_plain_folder_and_several_sources_have_no_domains(folder_of: Write) -> None:
    folder = folder_of({"a/1.txt": "x", "a/2.txt": "x", "b/1.txt": "x"})
    assert names(folder / "a" / "1.txt") is None
    assert names(folder / "a") is None
    assert names(folder / "a", folder / "b") is None
    assert names() is None


def test_a_folder_without_text_is_no_domain(folder_of: Write) -> None:
    assert names(folder_of({"a/1.txt": "x", "pictures/1.png": b"\x89PNG"})) == {"a": ["a/1.txt"]}


def test_a_domain_has_the_tokens_of_its_folder_alone(folder_of: Write, tmp_path: Path) -> None:
    folder = folder_of({"a/1.txt": "some text", "b/1.txt": "other text", "b/2.txt": "more"})
    domains = prepare_domains([str(folder)], tokenizer=byte_tokenizer(), folder=tmp_path / "text")
    assert domains.split
    for name, text in domains.texts.items():
        alone = prepare([str(folder / name)], folder=tmp_path / name, whole=True)
        assert np.array_equal(text.tokens("test"), alone.tokens("test"))


def test_a_text_without_domains_is_one_text(folder_of: Write, tmp_path: Path) -> None:
    folder = folder_of({"1.txt": "some text", "2.txt": "other text"})
    domains = prepare_domains([str(folder)], tokenizer=byte_tokenizer(), folder=tmp_path / "text")
    (text,) = domains.texts.values()
    assert (domains.split, text.bytes("test")) == (False, 19)


def test_skipped_lines_of_all_domains_are_counted(folder_of: Write, tmp_path: Path) -> None:
    good = "\n".join(["a line"] * 400).encode()
    folder = folder_of({f"{name}/1.txt": good + b"\n\xff\n\xfe\n\xfd\n" for name in "ab"})
    domains = prepare_domains([str(folder)], tokenizer=byte_tokenizer(), folder=tmp_path / "text")
    assert domains.skipped.lines == 6
    assert [f"{name}/1.txt" in line for name, line in zip("aaabb", domains.skipped.named, strict=True)] == [True] * 5


def test_a_domain_whose_files_are_empty_is_named(folder_of: Write, tmp_path: Path) -> None:
    folder = folder_of({"a/1.txt": "text", "b/1.txt": " \n"})
    with pytest.raises(UserError, match=f"{folder}/b: no text in 1 file"):
        prepare_domains([str(folder)], tokenizer=byte_tokenizer(), folder=tmp_path / "text")
