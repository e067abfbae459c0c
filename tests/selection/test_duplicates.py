"""Copies are found, each one that is left out has a twin that stays, and held-out text is what it was."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars
import pytest

from sparsedial.errors import UserError
from sparsedial.records.selection import Selected
from sparsedial.selection import in_order
from sparsedial.text.corpus import open_corpus
from sparsedial.text.manifest import read_manifest
from sparsedial.text.reading import read_corpus
from sparsedial.text.splitting import split_reading
from sparsedial.verbs.select.select import select
from sparsedial.verbs.select.settings import SelectSettings

from .planted import Planted, edited, plant, prose

NEAR = 0.8


def rows_of(folder: Path) -> polars.DataFrame:
    return read_manifest(folder / "documents.parquet").collect()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp("planted") / "text")


@pytest.fixture(scope="module")
def selected(planted: Planted) -> tuple[Selected, polars.DataFrame]:
    out = planted.folder.parent / "kept"
    answer = select(SelectSettings(text=(str(planted.folder),), out=out, workers=1))
    return answer, rows_of(out)


def test_planted_copies_are_found(planted: Planted, selected):
    """Of a pair that is alike, both stay only where both are held out, or where the twin of one is a third document."""
    rows = {row["id"]: row for row in selected[1].iter_rows(named=True)}
    alike = [pair for pair in planted.pairs if planted.jaccard(*pair) >= NEAR]
    assert len(alike) > 60
    missed = [
        (one, other)
        for one, other in alike
        if rows[one]["kept"] and rows[other]["kept"] and "train" in (rows[one]["split"], rows[other]["split"])
    ]
    assert len(missed) <= 0.05 * len(alike)


def test_each_document_that_is_left_out_has_a_twin_that_stays(planted: Planted, selected):
    rows = {row["id"]: row for row in selected[1].iter_rows(named=True)}
    left_out = [row for row in rows.values() if not row["kept"] and row["reason"] != "equal_to_train"]
    assert len(left_out) > 60
    for row in left_out:
        twin = rows[row["duplicate_of"]]
        assert twin["kept"]
        assert row["jaccard"] == planted.jaccard(row["id"], twin["id"]) >= NEAR
        held_out = twin["split"] != "train"
        assert held_out == row["reason"].startswith("held_out")
        assert held_out or twin["id"] < row["id"], "the first in the order of the corpus stays"


def test_no_copy_stands_in_train_of_a_held_out_document(planted: Planted, selected):
    rows = selected[1].filter("kept")
    split = dict(zip(rows["id"], rows["split"], strict=True))
    across = [pair for pair in planted.pairs if {split.get(one) for one in pair} & {"validation", "test"}]
    assert any(planted.jaccard(*pair) >= NEAR for pair in planted.pairs if not set(pair) <= set(split))
    for pair in across:
        assert "train" not in {split.get(one) for one in pair} or planted.jaccard(*pair) < NEAR


def test_held_out_documents_stay_as_they_are_without_a_selection(planted: Planted, selected):
    splitting = split_reading(read_corpus(open_corpus((str(planted.folder),))))
    rows = selected[1]
    now = [split if kept else None for split, kept in rows.select("split", "kept").iter_rows()]
    for before, after in zip(splitting.splits, now, strict=True):
        assert after == before or (before, after) == ("train", None)


def test_a_group_of_the_manifest_is_in_one_split(selected):
    by_group = selected[1].group_by("group").agg(polars.col("split").n_unique(), polars.len())
    assert by_group["split"].max() == 1
    assert by_group["len"].max() > 1


def test_the_counts_are_those_of_the_manifest(selected):
    answer, rows = selected
    assert answer.read.documents == rows.height
    assert answer.read.bytes == rows["bytes"].sum()
    assert answer.kept.documents == rows["kept"].sum()
    assert answer.read.documents - answer.kept.documents == sum(one.removed.documents for one in answer.filters)
    assert answer.read.bytes - answer.kept.bytes == sum(one.removed.bytes for one in answer.filters)
    assert {one.name for one in answer.filters if one.removed.documents} == set(rows["reason"].drop_nulls())


@pytest.mark.parametrize("keep", [None, 0.4])
def test_the_number_of_workers_changes_nothing(planted: Planted, tmp_path, monkeypatch, keep, unguarded):
    monkeypatch.setattr(in_order, "BATCH_BYTES", 4000)  # many batches
    made = {}
    for workers in (1, 2):
        out = tmp_path / str(workers)
        made[workers] = select(SelectSettings(text=(str(planted.folder),), out=out, workers=workers, keep=keep))
    assert made[1].manifest.digest == made[2].manifest.digest
    assert made[1].filters == made[2].filters
    pages = [(tmp_path / str(workers) / "examples.html").read_bytes() for workers in (1, 2)]
    assert pages[0] == pages[1]


def train_name(letter: str) -> str:
    """A file's name that is in train: the hash of those in other splits is low."""
    names = (f"{letter}{number}.txt" for number in range(1000))
    return next(name for name in names if hashlib.sha256(name.encode()).hexdigest().startswith("f"))


A, B, C, D = map(train_name, "abcd")


def write(folder: Path, texts: dict[str, str]) -> Path:
    """Some texts, beside ninety others that are like none."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    for number in range(90):
        (folder / f"other{number}.txt").write_text(" ".join(prose(5000 + number)))
    return folder


def of_train(folder: Path, out: Path, **settings) -> dict[str, dict]:
    """The rows of the planted texts; they must be in train."""
    select(SelectSettings(text=(str(folder),), out=out, workers=1, **settings))
    rows = {row["id"]: row for row in rows_of(out).iter_rows(named=True) if not row["id"].startswith("other")}
    assert {row["split"] for row in rows.values()} == {"train"}
    return rows


def test_in_a_chain_what_is_like_none_that_stays_stays(tmp_path):
    words = prose(1, 200)
    first, middle, last = words, [*words[:-18], *prose(2, 18)], [*prose(3, 18), *words[18:-18], *prose(2, 18)]
    texts = {name: " ".join(each) for name, each in zip((A, B, C), (first, middle, last), strict=True)}
    rows = of_train(write(tmp_path / "text", texts), tmp_path / "kept")
    assert [row["kept"] for row in rows.values()] == [True, False, True]
    assert rows[B]["duplicate_of"] == A
    assert rows[C]["reason"] is None


def test_equal_texts_are_found_whatever_their_white_space(tmp_path):
    text = " ".join(prose(1))
    texts = {
        A: text,
        B: text.replace(" ", "\n "),
        C: "short caf\u00e9",
        D: "short cafe\u0301",
    }
    rows = of_train(write(tmp_path / "text", texts), tmp_path / "kept")
    assert [row["reason"] for row in rows.values()] == [None, "exact", None, "exact"]
    assert [row["duplicate_of"] for row in rows.values()] == [None, A, None, C]


@pytest.mark.parametrize(("near", "kept"), [(0.5, False), (0.95, True)])
def test_the_threshold_decides(tmp_path, near, kept):
    texts = {A: " ".join(prose(1)), B: " ".join(edited(prose(1), 4, 1))}
    rows = of_train(write(tmp_path / "text", texts), tmp_path / "kept", near=near)
    assert rows[B]["kept"] == kept


def test_copies_of_held_out_text_alone_are_refused(tmp_path):
    text = prose(1, 300)
    (tmp_path / "text").mkdir()
    for number in range(60):
        (tmp_path / "text" / f"{number}.txt").write_text(" ".join([*text, f"number{number}"]))
    with pytest.raises(UserError, match="train split are copies of held-out text"):
        select(SelectSettings(text=(str(tmp_path / "text"),), out=tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()
