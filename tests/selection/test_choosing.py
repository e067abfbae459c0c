"""A share of the train text stays, in whole groups, drawn from what is no copy."""

from __future__ import annotations

from pathlib import Path

import polars
import pytest

from sparsedial.errors import UserError
from sparsedial.selection.choosing import highest
from sparsedial.selection.scores import SCORES, SIDES, Groups, Score
from sparsedial.text.manifest import read_manifest
from sparsedial.verbs.select.select import select
from sparsedial.verbs.select.settings import SelectSettings

from .planted import plant, prose


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


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_a_number_for_each_group_that_names_its_source(name, side):
    names, losses = ["a", "b", "surrogate\udcff"], [2.0, 1.0, 3.0]
    scores = SCORES[name].of(Groups(names=names, seed=0, losses=losses, side=side))
    assert SCORES[name].of(Groups(names=names[::-1], seed=0, losses=losses[::-1], side=side)) == scores[::-1]
    assert len(scores) == 3
    assert SCORES[name].source


@pytest.mark.parametrize(
    ("side", "most", "three"), [("low", "b", {*"bad"}), ("high", "e", {*"ecd"}), ("middle", "d", {*"dac"})]
)
def test_a_side_of_the_losses_stays(side, most, three):
    losses = [2.0, 1.0, 5.0, 3.0, 9.0]
    scores = SCORES["reference-loss"].of(Groups(names=list("abcde"), seed=0, losses=losses, side=side))
    best = ["abcde"[at] for at in sorted(range(5), key=lambda at: -scores[at])]
    assert best[0] == most
    assert {*best[:3]} == three


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains, of which one is three times as large; a copy of a text of one stands in the other."""
    folder = tmp_path_factory.mktemp("domains") / "text"
    for name, count in (("code", 30), ("prose", 90)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number:02}.txt").write_text(" ".join(prose(number + 1000 * (name == "code"), 100)))
    return folder


def train_shares(answer) -> dict[str, tuple[float, float]]:
    return {name: (part.share_before, part.share_after) for name, part in answer.domains.items()}


def test_a_share_of_each_domain_stays(domains, tmp_path):
    answer = select(SelectSettings(text=(str(domains),), out=tmp_path / "kept", keep=0.3, keep_by="domain"))
    rows = read_manifest(tmp_path / "kept" / "documents.parquet").filter(polars.col("split") == "train").collect()
    for name, (before, after) in train_shares(answer).items():
        mine = rows.filter(domain=name)
        kept = mine.filter("kept")["bytes"].sum()
        assert kept / mine["bytes"].sum() == pytest.approx(0.3, abs=0.03)
        assert before == pytest.approx(mine["bytes"].sum() / rows["bytes"].sum())
        assert after == pytest.approx(before, abs=0.03)
    assert answer.keep_by == "domain"


def test_the_shares_of_domains_are_said_where_one_is_dropped(domains, tmp_path, monkeypatch):
    """A score that knows the domain: without shares by domain, nothing of the larger one stays."""
    of_code = {name: float(name.startswith("code")) for name in ("code", "prose")}
    score = Score(lambda groups: [of_code[name.partition("/")[0]] for name in groups.names], "by domain", "ours")
    monkeypatch.setitem(SCORES, "random", score)
    answers = {
        by: select(SelectSettings(text=(str(domains),), out=tmp_path / by, keep=0.2, keep_by=by))
        for by in ("text", "domain")
    }
    assert train_shares(answers["text"])["prose"][1] < 0.01
    before, after = train_shares(answers["domain"])["prose"]
    assert after == pytest.approx(before, abs=0.03)


def test_a_text_without_domains_has_no_shares_by_domain(folder, tmp_path):
    with pytest.raises(UserError, match="the text has no domains"):
        select(SelectSettings(text=(str(folder),), out=tmp_path / "kept", keep=0.5, keep_by="domain"))
