"""Documents go to one split each, and equal ones do not stand on both sides."""

from __future__ import annotations

import numpy as np
import pytest

from sparsedial.records.text import HeldOutCounts
from sparsedial.text import splits as splits_file
from sparsedial.text.documents import Document
from sparsedial.text.overlap import Overlap, window_hashes
from sparsedial.text.splits import Entry, assign, cuts, destinations, entry, group_sizes


def an_entry(group: str, text: bytes) -> Entry:
    return entry(Document(id=group, name=group, source=group, group=group, text=text))


def test_the_held_out_splits_get_about_their_share_of_bytes_and_train_the_rest() -> None:
    sizes = {
        f"document {number}": int(size) for number, size in enumerate(np.random.default_rng(0).integers(1, 99, 1000))
    }
    splits = assign(sizes)
    total = sum(sizes.values())
    for split in ("validation", "test"):
        share = sum(size for name, size in sizes.items() if splits[name] == split) / total
        assert 0.045 <= share <= 0.055


def test_the_split_depends_on_names_and_not_on_order() -> None:
    sizes = {f"document {number}": 10 + number % 7 for number in range(200)}
    assert assign(sizes) == assign(dict(reversed(sizes.items())))
    renamed = assign({f"other {number}": 10 + number % 7 for number in range(200)})
    assert list(renamed.values()) != list(assign(sizes).values())


def test_a_group_larger_than_a_held_out_share_trains() -> None:
    splits = assign({"giant": 500, **{f"small {number}": 5 for number in range(100)}})
    assert splits["giant"] == "train"
    assert set(splits.values()) == {"train", "validation", "test"}


def test_only_documents_above_a_twentieth_of_the_text_are_cut() -> None:
    entries = [an_entry("long", b"x" * 1000), *(an_entry(f"short {number}", b"x" * 30) for number in range(100))]
    assert cuts(entries) == {"long": 100}


def test_documents_too_large_for_a_held_out_split_are_cut_where_the_others_do_not_fill_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(splits_file, "HELD_OUT_MOST_BYTES", 1600)
    large = [an_entry(f"large {number}", b"x" * 2000) for number in range(40)]
    readme = an_entry("readme", b"x" * 30)
    fitting = [an_entry(f"small {number}", b"x" * 700) for number in range(5)]
    assert cuts([*large, readme]) == {f"large {number}": 100 for number in range(40)}
    assert cuts([*large, *fitting]) == {}  # a text that could always be split is split as ever
    sizes = group_sizes([*large, *fitting])
    assert {assign(sizes)[f"large {number}"] for number in range(40)} == {"train"}


def test_equal_documents_leave_the_held_out_splits_and_validation_comes_before_test() -> None:
    splits = {"t1": "train", "v1": "validation", "v2": "validation", "v3": "validation", "e1": "test", "e2": "test"}
    texts = {"t1": b"a b", "v1": b" a\n\nb ", "v2": b"c", "v3": b"c ", "e1": b"\tc", "e2": b"d"}
    found, removed = destinations(
        [an_entry(group, texts[group]) for group in ("e1", "v1", "t1", "v2", "v3", "e2")], splits
    )
    assert found == [None, None, "train", "validation", None, "test"]
    assert removed == HeldOutCounts(validation=2, test=1)


def test_windows_have_equal_hashes_exactly_where_their_bytes_are_equal() -> None:
    data = np.random.default_rng(1).integers(97, 99, 80_000, dtype=np.uint8).tobytes()
    data += data[1000:1500] + bytes(200) + data[40_000:40_100]
    hashes = window_hashes(data)
    assert len(hashes) == len(data) - 63
    texts: dict[bytes, int] = {}
    for place, value in enumerate(hashes.tolist()):
        assert texts.setdefault(data[place : place + 64], value) == value
    assert len(set(texts.values())) == len(texts)
    assert len(window_hashes(b"x" * 63)) == 0


@pytest.mark.parametrize("shared", [0.0, 0.25, 1.0])
def test_overlap_finds_the_share_that_was_copied(shared: float) -> None:
    draw = np.random.default_rng(2)
    train = draw.bytes(200_000)
    copied = int(shared * 100_000)
    held_out = train[:copied] + draw.bytes(100_000 - copied)
    overlap = Overlap({"train": len(train), "validation": len(held_out), "test": len(held_out)})
    for start in range(0, len(held_out), 777):  # in documents: those that straddle the copy's end lose some windows
        overlap.sample("validation", held_out[start : start + 777])
    overlap.sample("test", held_out)
    overlap.close()
    overlap.look_through("train", train)
    overlap.look_through("validation", held_out[-30_000:])
    record = overlap.record()
    assert record["validation"] == pytest.approx(shared, abs=0.01)
    assert record["test"] == pytest.approx(shared, abs=0.005)
    assert record["test_in_validation"] == pytest.approx(0.3, abs=0.005)
    assert record["sampled_windows"]["test"] > 40_000


def test_a_window_that_stands_twice_in_the_sample_counts_twice() -> None:
    text = bytes(range(64))
    overlap = Overlap({"train": 64, "validation": 256, "test": 0})
    for document in (text, text, text, bytes(reversed(text))):
        overlap.sample("validation", document)
    overlap.close()
    overlap.look_through("train", text)
    assert overlap.record()["validation"] == 0.75
    assert overlap.record()["test"] is None
