"""The random part of a measured effect is drawn from the whole train text, and is as large as the part that stays."""

from __future__ import annotations

from pathlib import Path

import polars
import pytest
from msgspec.structs import replace

from sparsedial.records.record import read
from sparsedial.records.selection import ContaminatedTask, Selected
from sparsedial.selection.control import random_part
from sparsedial.text.corpus import open_corpus
from sparsedial.text.manifest import read_manifest
from sparsedial.text.prepare import prepare
from sparsedial.text.reading import Reading, read_corpus
from sparsedial.text.splitting import Splitting, split_reading
from sparsedial.verbs.select.random_selection import full_selection, random_selection
from sparsedial.verbs.select.select import select
from sparsedial.verbs.select.settings import SelectSettings

from .planted import plant, prose

TRAIN = polars.col("split") == "train"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory.mktemp("planted") / "text", originals=150, copies=1).folder


@pytest.fixture(scope="module")
def read_once(folder: Path) -> tuple[Reading, Splitting]:
    reading = read_corpus(open_corpus((str(folder),)))
    return reading, split_reading(reading)


def both(folder: Path, out: Path, read_once, **settings) -> tuple[polars.DataFrame, polars.DataFrame]:
    """The manifests of a selection and of its random part."""
    asked = SelectSettings(text=(str(folder),), out=out, workers=1, **settings)
    answer = select(asked)
    assert isinstance(answer, Selected)
    random_selection(asked, answer, *read_once, out / "random")
    kept, drawn = (read_manifest(path / "documents.parquet").collect() for path in (out, out / "random"))
    return kept, drawn


def test_it_is_as_large_as_what_stays_and_another_part(folder, tmp_path, read_once):
    kept, drawn = both(folder, tmp_path / "kept", read_once, keep=0.5)
    train, largest = kept.filter(TRAIN), kept["bytes"].max()
    sizes = [rows.filter(TRAIN & polars.col("kept"))["bytes"].sum() for rows in (kept, drawn)]
    assert abs(sizes[0] - sizes[1]) <= largest
    chosen = set(kept.filter(TRAIN & polars.col("kept"))["id"])
    random = set(drawn.filter(TRAIN & polars.col("kept"))["id"])
    expected = sizes[0] / train["bytes"].sum()  # of a part that knows nothing of the other
    assert len(chosen & random) / len(random) == pytest.approx(expected, abs=0.15)


def test_it_holds_copies_as_the_text_does(folder, tmp_path, read_once):
    """What the selection left out as a copy may be in it: nothing was removed before it was drawn."""
    kept, drawn = both(folder, tmp_path / "kept", read_once, keep=0.5)
    copies = set(kept.filter(TRAIN & polars.col("reason").is_in(["near", "exact"]))["id"])
    random = set(drawn.filter(TRAIN & polars.col("kept"))["id"])
    share = len(random) / kept.filter(TRAIN).height
    assert len(copies & random) / len(copies) == pytest.approx(share, abs=0.15)


def test_it_is_as_large_without_what_may_not_be_in_it(read_once):
    reading, splitting = read_once
    without = {number for number, split in enumerate(splitting.splits) if split == "train" and number % 3}
    part, wanted = random_part(reading, splitting, reading.bytes // 6, 0, without), reading.bytes // 6
    sizes = [reading.entries[number].size for number in part]
    assert part.isdisjoint(without)
    assert abs(sum(sizes) - wanted) <= max(sizes)


def test_no_part_holds_copies_of_held_out_text(folder, tmp_path, read_once):
    """A model that learned them would be scored on what it has seen, and only the kept part would be without."""
    kept, drawn = both(folder, tmp_path / "kept", read_once, keep=0.5)
    asked = SelectSettings(text=(str(folder),), out=tmp_path / "kept", workers=1, keep=0.5)
    answer = read(tmp_path / "kept" / "select.json", Selected)
    assert full_selection(asked, answer, read_once[0], tmp_path / "full") is not None
    whole = read_manifest(tmp_path / "full" / "documents.parquet").collect()
    copies = kept["reason"].is_in(["held_out_exact", "held_out_near"]).fill_null(False)
    assert copies.sum() > 3
    for frame in (drawn, whole):
        assert frame.filter(copies)["reason"].equals(kept.filter(copies)["reason"])
        assert not frame.filter(copies)["kept"].any()
    assert whole.filter(TRAIN & ~copies)["kept"].all()
    record = read(tmp_path / "full" / "select.json", Selected)
    assert (record.keep, record.score, record.near) == (None, None, None)
    assert sum(one.removed.documents for one in record.filters) == record.read.documents - record.kept.documents


def test_a_text_without_copies_of_held_out_text_is_its_own_full_part(tmp_path):
    for number in range(60):
        (tmp_path / "text").mkdir(exist_ok=True)
        (tmp_path / "text" / f"{number}.txt").write_text(" ".join(prose(number)))
    asked = SelectSettings(text=(str(tmp_path / "text"),), out=tmp_path / "kept", workers=1, keep=0.5)
    answer = select(asked)
    reading = read_corpus(open_corpus(asked.text))
    assert full_selection(asked, answer, reading, tmp_path / "full") is None
    assert not (tmp_path / "full").exists()


def test_held_out_text_is_the_same(folder, tmp_path, read_once):
    kept, drawn = both(folder, tmp_path / "kept", read_once, keep=0.5)
    columns = ["id", "split", "kept", "reason", "bytes", "digest"]
    assert kept.filter(~TRAIN).select(columns).equals(drawn.filter(~TRAIN).select(columns))
    texts = [
        prepare((str(path),), folder=tmp_path / name)
        for name, path in (("full", folder), ("left", tmp_path / "kept"), ("drawn", tmp_path / "kept" / "random"))
    ]
    for split in ("validation", "test"):
        assert len({text.facts.splits.of(split).sha256 for text in texts}) == 1
    assert len({text.facts.splits.train.sha256 for text in texts}) == 3


def test_it_is_a_selection_that_says_what_it_is(folder, tmp_path, read_once):
    both(folder, tmp_path / "kept", read_once, keep=0.3, near=0.9)
    record = read(tmp_path / "kept" / "random" / "select.json", Selected)
    assert (record.score, record.near, record.quality, record.side) == ("random", None, (), None)
    assert sum(one.removed.documents for one in record.filters) == record.read.documents - record.kept.documents
    assert record.effect_reason == "it is the random part of a measured effect"


def test_it_does_not_claim_that_items_of_tasks_went(folder, tmp_path, read_once):
    """It is drawn from the whole train text, with the documents that hold items."""
    task = ContaminatedTask(task="squad", judged=9, items=2, documents=3)
    asked = SelectSettings(text=(str(folder),), out=tmp_path / "kept", workers=1, keep=0.5)
    answer = replace(select(asked), tasks=("squad",), items="remove", contaminated=(task,), contaminated_reason=None)
    record = random_selection(asked, answer, *read_once, tmp_path / "random")
    assert (record.tasks, record.items, record.contaminated) == ((), None, None)
    assert record.contaminated_reason


def test_the_seed_draws_it_and_a_random_share_is_another_draw(read_once):
    reading, splitting = read_once
    half = reading.bytes // 2
    assert random_part(reading, splitting, half, 0) == random_part(reading, splitting, half, 0)
    assert random_part(reading, splitting, half, 0) != random_part(reading, splitting, half, 1)
    assert all(splitting.splits[number] == "train" for number in random_part(reading, splitting, half, 0))
