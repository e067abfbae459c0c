"""Passages of 50 words that stand in documents before are found, as a readable twin finds them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import polars
import pytest

import sparsedial
from sparsedial.errors import UserError
from sparsedial.selection import in_order
from sparsedial.selection.spans import RUNS, Stood, _least_of, find_spans
from sparsedial.text.corpus import open_corpus
from sparsedial.text.reading import read_corpus
from sparsedial.text.splitting import split_reading

from .planted import prose

BOILERPLATE = [prose(90_000 + number, words) for number, words in enumerate((50, 49, 60, 120))]


def document(number: int, draw: random.Random) -> list[str]:
    """Words of its own around passages that others hold too; some passages stand twice in it."""
    words = prose(number, draw.randrange(20, 150))
    for _ in range(draw.randrange(3)):
        at = draw.randrange(len(words))
        words[at:at] = draw.choice(BOILERPLATE)
    if number % 10 == 0:
        words += words[-60:]
    return words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, draw = tmp_path_factory.mktemp("spans") / "text", random.Random(3)
    folder.mkdir()
    for number in range(200):
        (folder / f"{number:03}.txt").write_text("\n ".join(document(number, draw)))
    return folder


def slowly(texts: list[list[str]], splits: list[str | None], most: float) -> tuple[dict[int, float], int, int, int]:
    """Documents left out with their shares; documents with passages, passages, bytes: window by window."""
    stood: set[tuple[str, ...]] = set()
    left_out, documents, passages, size = {}, 0, 0, 0
    for wanted in (("validation", "test"), ("train",)):
        for number, (words, split) in enumerate(zip(texts, splits, strict=True)):
            if split not in wanted:
                continue
            windows = [tuple(words[at : at + 50]) for at in range(len(words) - 49)]
            covered = [False] * (len(words) + 1)
            for at, window in enumerate(windows):
                if window in stood and split == "train":
                    covered[at : at + 50] = [True] * 50
            held = sum(len(word) + 1 for word, on in zip(words, covered, strict=False) if on)
            count = sum(on and not before for on, before in zip(covered, [False, *covered], strict=False))
            share = held / sum(len(word) + 1 for word in words)
            documents, passages, size = documents + bool(count), passages + count, size + held
            if share > most:
                left_out[number] = share
            else:
                stood.update(windows)
    return left_out, documents, passages, size


@pytest.mark.parametrize(("most", "workers"), [(0.0, 1), (0.3, 1), (0.6, 1), (0.3, 2)])
def test_passages_are_those_of_a_readable_twin(folder, monkeypatch, most, workers):
    monkeypatch.setattr(in_order, "BATCH_BYTES", 30_000)
    reading = read_corpus(open_corpus((str(folder),)))
    splits = split_reading(reading).splits
    found = find_spans(reading, splits, most, workers)
    texts = [path.read_text().split() for path in sorted(folder.iterdir())]
    left_out, documents, passages, size = slowly(texts, splits, most)
    assert len(left_out) > 5
    assert found.left_out == pytest.approx(left_out)
    assert (found.documents, found.passages, found.bytes) == (documents, passages, size)


def test_documents_that_are_mostly_passages_are_left_out(folder, tmp_path):
    answer = sparsedial.select(folder, out=tmp_path / "kept", spans=0.4, workers=1)
    rows = polars.read_parquet(tmp_path / "kept" / "documents.parquet")
    left_out = rows.filter(reason="spans")
    assert left_out.height > 5
    assert set(left_out["split"]) == {"train"}
    by_name = {one.name: one for one in answer.filters}
    assert by_name["spans"].removed.documents == left_out.height
    assert by_name["spans"].threshold == answer.spans == 0.4
    assert answer.repeated_spans.documents >= left_out.height
    page = (tmp_path / "kept" / "examples.html").read_text()
    assert 'id="spans"' in page
    section = page.partition('id="spans"')[2].partition("<h2")[0]
    assert "It measures 0." in section.partition("<h3>Stay</h3>")[2]


@pytest.mark.parametrize(
    ("value", "problem"),
    [(-0.1, "not a positive number"), (1, "at least at 0 and below 1"), (2, "at least at 0 and below 1")],
)
def test_a_share_out_of_range_is_refused(value, problem, folder, tmp_path):
    with pytest.raises(UserError, match=problem):
        sparsedial.select(folder, out=tmp_path / "kept", spans=value)


@pytest.mark.parametrize("count", [1, 2, 3, 8, RUNS, 31, 32])
def test_the_least_of_a_window(count):
    values = np.random.default_rng(0).integers(0, 1000, 80, np.uint64)
    expected = [values[at : at + count].min() for at in range(len(values) - count + 1)]
    assert _least_of(values, count).tolist() == expected


def test_hashes_that_stood_are_held(monkeypatch):
    monkeypatch.setattr("sparsedial.selection.spans.SMALL", 4)
    stood, known, draw = Stood(), set(), np.random.default_rng(1)
    for size in draw.integers(0, 20, 40):
        hashes = draw.integers(0, 500, size, np.uint64)
        assert stood.holds(hashes).tolist() == [value in known for value in hashes.tolist()]
        stood.add(hashes)
        known.update(hashes.tolist())
