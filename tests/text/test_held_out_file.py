"""The file that can be left out of a text: one of another kind, not too short, not too large, with its copies."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from sparsedial.errors import UserError
from sparsedial.text import held_out_file
from sparsedial.text.corpus import open_corpus
from sparsedial.text.held_out_file import HeldOutFile, divergences, held_out_files, jensen_shannon, spread_over_bytes
from sparsedial.text.tokenizer import byte_tokenizer

PROSE, CODE = "abcdefgh ", "()[]=_:. "


def written(folder: Path, name: str, letters: str, count: int, seed: int = 0) -> Path:
    draw = random.Random(f"{name} {seed}")
    (folder / name).write_text("".join(draw.choices(letters, k=count)))
    return folder / name


def found_in(*sources: Path, least: int = 200) -> list[HeldOutFile]:
    return list(held_out_files(open_corpus(tuple(map(str, sources))), byte_tokenizer(), least))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four files of one kind, and one of another."""
    for number in range(4):
        written(tmp_path, f"{number}.txt", PROSE, 3000 + number)
    written(tmp_path, "code.py", CODE, 1000)
    return tmp_path


def test_the_divergence_is_the_square_of_scipys_distance():
    drawn = np.random.default_rng(0)
    for zeros in (0, 5, 9):
        one_V, other_V = drawn.random(12), drawn.random(12)
        one_V[:zeros], other_V[12 - zeros :] = 0, 0
        one_V, other_V = one_V / one_V.sum(), other_V / other_V.sum()
        assert jensen_shannon(one_V, other_V) == pytest.approx(jensenshannon(one_V, other_V, base=2) ** 2, abs=1e-12)
    assert jensen_shannon(one_V, one_V) == 0
    assert jensen_shannon(np.array([1.0, 0]), np.array([0, 1.0])) == 1


def test_the_others_count_by_their_weight():
    samples = [np.array([0, 0]), np.array([0, 1]), np.array([1, 1])]
    found = divergences(samples, np.array([1, 3, 1]), [0, 2], 2)
    assert found == pytest.approx({0: jensen_shannon(np.array([1.0, 0]), np.array([3, 5]) / 8), 2: found[0]})


def test_the_file_of_another_kind_comes_first_and_what_is_left_lacks_it(folder):
    first, *others = found_in(folder)
    assert first.file.sources == (str(folder / "code.py"),)
    assert [file.path for file in first.file.files] == [folder / "code.py"]
    assert [file.path.name for file in first.rest.files] == ["0.txt", "1.txt", "2.txt", "3.txt"]
    assert first.rest.sources == (str(folder),)
    assert first.divergence_bits > 0.5 > 0.1 > others[0].divergence_bits >= others[-1].divergence_bits
    assert first.median_divergence_bits < 0.1
    assert first.bytes_share == pytest.approx(1000 / 13_006)
    assert found_in(folder) == [first, *others], "the same each time"


def test_files_that_are_named_are_a_text_of_several_too(folder):
    names = [folder / "code.py", *(folder / f"{number}.txt" for number in range(4))]
    assert found_in(*names)[0].file.sources == (str(names[0]),)


def test_its_copies_are_left_out_too_and_count(folder):
    (folder / "again.py").write_bytes((folder / "code.py").read_bytes())
    first = found_in(folder, folder / "code.py")[0]
    assert {file.path.name for file in first.rest.files} == {"0.txt", "1.txt", "2.txt", "3.txt"}
    assert first.bytes_share == pytest.approx(3000 / 15_006)
    (folder / "once more.py").write_bytes((folder / "code.py").read_bytes())
    shares = [each.bytes_share for each in found_in(folder, folder / "code.py", folder / "again.py")]
    assert max(shares) < 0.25, "five copies are more than a quarter"


@pytest.mark.parametrize("length", [100, 5000])
def test_a_file_that_is_too_short_or_too_large_stays(folder, length):
    written(folder, "code.py", CODE, length)
    assert "code.py" not in [each.file.files[0].path.name for each in found_in(folder)]


def test_a_text_of_one_file_and_one_of_short_files_have_none(folder, tmp_path):
    assert found_in(folder / "0.txt") == []
    (tmp_path / "notes").mkdir()
    for number in range(9):
        written(tmp_path / "notes", f"{number}.txt", PROSE, 150)
    assert found_in(tmp_path / "notes") == []


def test_a_short_file_does_not_seem_to_differ_more_than_a_long_one_that_does(tmp_path):
    """With as many tokens as the short one has, both miss letters by chance."""
    letters = "".join(chr(number) for number in range(33, 33 + 60))
    for number in range(5):
        written(tmp_path, f"{number}.txt", letters, 8000 + number)
    written(tmp_path, "short.txt", letters, 80)
    written(tmp_path, "other.txt", letters[:46], 8000)
    assert found_in(tmp_path, least=80)[0].file.files[0].path.name == "other.txt"


def test_of_very_many_files_some_are_read_and_large_ones_are_among_them(tmp_path, monkeypatch):
    monkeypatch.setattr(held_out_file, "MOST_FILES", 8)
    sizes = np.full(1000, 100)
    sizes[617] = 60_000
    numbers, weights = spread_over_bytes(sizes)
    assert 617 in numbers
    assert len(numbers) <= 8
    assert weights.sum() == 8
    assert weights[list(numbers).index(617)] == 3, "of 8: it has three eighths of the bytes"
    for number in range(30):
        written(tmp_path, f"{number:02}.txt", PROSE, 500)
    read = []
    monkeypatch.setattr(held_out_file, "documents", lambda corpus: read.append(corpus) or [])
    assert found_in(tmp_path) == []
    assert len(read) == 8


def test_a_file_is_not_read_to_its_end(tmp_path, monkeypatch):
    for number in range(5):
        written(tmp_path, f"{number}.txt", PROSE, 3000)
    with open(tmp_path / "long.jsonl", "w") as file:
        file.write('{"text": "%s"}\n' % ("abc " * 100) * 10)
        file.write("no JSON\n" * 200)
    monkeypatch.setattr(held_out_file, "READ_BYTES", 3000)
    assert len(found_in(tmp_path)) > 0
    monkeypatch.setattr(held_out_file, "READ_BYTES", 30_000)
    with pytest.raises(UserError, match=r"long.jsonl"):
        found_in(tmp_path)
