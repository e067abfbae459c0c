"""Sketches that a killed start left are used, whole ones only, and the result is the same."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from itertools import islice

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.selection import duplicates, in_order
from sparsedial.selection.bands import Bands
from sparsedial.selection.buckets import Buckets
from sparsedial.selection.sketch import sketches
from sparsedial.selection.sketch_file import SketchFile, packed, sketches_of
from sparsedial.text.documents import Document
from sparsedial.verbs.select.select import select
from sparsedial.verbs.select.settings import SelectSettings

from .planted import plant, prose

BATCHES = [[" ".join(prose(10 * batch + number)).encode() for number in range(batch + 1)] for batch in range(4)]


def filled(path, made_for=b"1234"):
    held = SketchFile(path, made_for)
    for texts in BATCHES:
        held.add(packed(sketches(texts, Bands(4, 4))))
    return held


def test_sketches_come_back_as_they_were(tmp_path):
    made = [sketch for texts in BATCHES for sketch in sketches(texts, Bands(4, 4))]
    wanted = [place % 3 != 1 for place in range(len(made))]
    with closing(filled(tmp_path / "held")) as held:
        found = [pair for batch in held.batches(wanted) for pair in batch]
        runs = [held.runs(place) for place, _ in found]
    assert [place for place, _ in found] == [place for place in range(len(made)) if wanted[place]]
    for (place, sketch), again in zip(found, runs, strict=True):
        assert sketch.digest == made[place].digest
        assert np.array_equal(sketch.keys, made[place].keys)
        assert np.array_equal(sketch.runs, made[place].runs)
        assert np.array_equal(again, made[place].runs)


@pytest.mark.parametrize(("cut", "flip", "left"), [(0, None, 10), (1, None, 6), (0, -9, 6), (0, 30, 0)])
def test_a_batch_that_is_not_whole_is_made_again(tmp_path, cut, flip, left):
    path = tmp_path / "held"
    filled(path).close()
    data = bytearray(path.read_bytes())
    if flip is not None:
        data[flip] ^= 1
    path.write_bytes(data[: len(data) - cut])
    with closing(SketchFile(path, b"1234")) as again:
        assert again.documents == left
        again.add(packed(sketches(BATCHES[3], Bands(4, 4))))
        assert np.array_equal(again.runs(left), sketches(BATCHES[3], Bands(4, 4))[0].runs)


def test_sketches_for_something_else_are_dropped(tmp_path):
    filled(tmp_path / "held").close()
    with closing(SketchFile(tmp_path / "held", b"1235")) as other:
        assert other.documents == 0


def test_a_file_is_written_by_one_process(tmp_path):
    with closing(filled(tmp_path / "held")), pytest.raises(UserError, match="is in use"):
        SketchFile(tmp_path / "held", b"1234")
    with closing(SketchFile(tmp_path / "held", b"1234")) as free:
        assert free.documents == 10


def test_a_start_that_was_killed_goes_on(tmp_path, monkeypatch):
    """Stopped in its third batch, with half a batch in the file, as a killed process leaves it."""
    folder = plant(tmp_path / "text", originals=60).folder
    monkeypatch.setattr(in_order, "BATCH_BYTES", 20_000)
    counts = []

    def counted(texts, bands, stop_at=None):
        if len(counts) == stop_at:
            raise KeyboardInterrupt
        counts.append(len(texts))
        return packed(sketches(texts, bands))

    def start(out):
        return select(SelectSettings(text=(str(folder),), out=tmp_path / out, workers=1))

    whole = start("whole")
    monkeypatch.setattr(duplicates, "packed_sketches", lambda texts, bands: counted(texts, bands, stop_at=2))
    with pytest.raises(KeyboardInterrupt):
        start("kept")
    left = sketches_of(tmp_path / "kept")
    with open(left, "ab") as file:
        file.write(b"\5\0\0\0half")
    monkeypatch.setattr(duplicates, "packed_sketches", counted)
    assert start("kept").manifest.digest == whole.manifest.digest
    assert sum(counts) == 180
    assert len(counts) > 4
    assert not left.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def killed(texts):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_one_line(monkeypatch):
    documents = (
        Document(id=str(number), name=str(number), source="", group="", text=b"some words") for number in range(9)
    )
    with pytest.raises(UserError, match="a process that compares documents was killed"):
        list(in_order.in_order(documents, killed, workers=2))


def test_sketches_outlive_a_process_that_was_killed(tmp_path, monkeypatch):
    folder = plant(tmp_path / "text", originals=60).folder
    monkeypatch.setattr(in_order, "BATCH_BYTES", 20_000)

    def dying(documents, work, workers):
        yield from islice(in_order.in_order(documents, work, workers), 2)
        raise in_order.WorkerDied("a process was killed")

    monkeypatch.setattr(duplicates, "in_order", dying)
    with pytest.raises(UserError, match="was killed"):
        select(SelectSettings(text=(str(folder),), out=tmp_path / "kept", workers=1))
    assert sketches_of(tmp_path / "kept").stat().st_size > 20_000


def test_buckets_find_what_a_dictionary_finds():
    draw, known, buckets = np.random.default_rng(0), dict[int, set[int]](), Buckets()
    place = 0
    for size in draw.integers(0, 30, 60):
        batch = [np.unique(draw.integers(0, 4000, 6, np.uint64)) for _ in range(size)]
        buckets.begin(batch)
        for at, keys in enumerate(batch):
            expected = set().union(*(known.get(key, ()) for key in keys.tolist()))
            assert buckets.candidates(at, keys) == sorted(expected)
            if draw.random() < 0.7:
                buckets.add(place, keys)
                for key in keys.tolist():
                    known.setdefault(key, set()).add(place)
                place += 1
