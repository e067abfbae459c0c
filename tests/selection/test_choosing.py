"""A share of the train text stays, in whole groups, drawn from what is no copy."""

from __future__ import annotations

from pathlib import Path

import polars
import pytest

from sparsedial.selection.choosing import highest
from sparsedial.selection.scores import SCORES
from sparsedial.text.manifest import read_manifest
from sparsedial.verbs.select import select
from sparsedial.verbs.select_settings import SelectSettings

from .planted import plant


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory.mktemp("planted") / "text", originals=100, copies=1).folder


def rows_of(folder: Path, out: Path, **settings) -> polars.DataFrame:
    select(SelectSettings(text=(str(folder),), out=out, **settings))
    return read_manifest(out / "documents.parquet").collect()


def test_a_share_of_what_is_no_copy_stays(folder, tmp_path):
    whole, half = rows_of(folder, tmp_path / "a"), rows_of(folder, tmp_path / "b", keep=0.5)
    train = polars.col("split") == "train"
    left, kept = (rows.filter(train & polars.col("kept"))["bytes"].sum() for rows in (whole, half))
    assert kept / left == pytest.approx(0.5, abs=0.02)
    for before, after in zip(whole.iter_rows(named=True), half.iter_rows(named=True), strict=True):
        if not before["kept"]:
            assert after == before
        elif before["split"] != "train":
            assert after["kept"]
        else:
            assert after["reason"] in (None, "random")


def test_the_seed_decides_and_nothing_else(folder, tmp_path):
    drawn = [rows_of(folder, tmp_path / str(at), keep=0.5, seed=seed) for at, seed in enumerate((0, 0, 1))]
    assert drawn[0].equals(drawn[1])
    assert drawn[0]["kept"].to_list() != drawn[2]["kept"].to_list()


def test_a_larger_share_holds_the_smaller_one(folder, tmp_path):
    small, large = (rows_of(folder, tmp_path / str(keep), keep=keep)["kept"] for keep in (0.3, 0.6))
    assert (small <= large).all()


def test_the_groups_of_highest_score_stay_up_to_the_nearest_size():
    sizes = {"a": 10, "b": 10, "c": 10, "d": 10}
    scores = [0.1, 0.9, 0.5, 0.7]
    assert highest(sizes, scores, 0.5) == {"b", "d"}
    assert highest(sizes, scores, 0.6) == {"b", "d"}
    assert highest(sizes, scores, 0.7) == {"b", "d", "c"}
    assert highest(sizes, scores, 0.001) == {"b"}


@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_a_number_for_each_group_that_names_its_source(name):
    groups = ["a", "b", "surrogate\udcff"]
    scores = SCORES[name].of(groups, 0)
    assert SCORES[name].of(groups[::-1], 0) == scores[::-1]
    assert len(scores) == 3
    assert SCORES[name].source
