"""Training sees each window once an epoch in a known order; scoring sees each token once and knows its bytes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.text import batches
from sparsedial.text.batches import batch, evaluation_windows, permuted, repeats, require_windows, window_bytes
from sparsedial.text.prepare import Text, open_text, prepare

from .conftest import prose


@pytest.fixture(scope="module", params=["bytes", "bpe:300"])
def text(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Text:
    folder = tmp_path_factory.mktemp("batches")
    (folder / "book.txt").write_text(prose(5, 300))
    return prepare((str(folder / "book.txt"),), tokenizer=request.param, folder=folder / "text")


def test_the_same_step_gives_the_same_batch_in_a_new_process(text: Text) -> None:
    steps = [0, 7, 1000, 123_456]
    first = [batch(text, seed=3, step=step, batch=8, context=32) for step in steps]
    batches._starts.cache_clear()
    again = open_text(text.folder)
    for step, windows in zip(reversed(steps), reversed(first), strict=True):
        assert np.array_equal(batch(again, seed=3, step=step, batch=8, context=32), windows)
    assert first[0].shape == (8, 33)
    assert first[0].dtype == np.int64


def test_the_order_of_windows_stays_as_it_was_when_runs_were_recorded(text: Text) -> None:
    # a change here changes every run: raise the recipe's version with it
    assert permuted(np.arange(12), 12, key=1).tolist() == [11, 9, 5, 8, 10, 3, 1, 4, 2, 0, 7, 6]
    windows = batch(numbered_text(text, 2000), seed=5, step=0, batch=8, context=32)
    assert windows[:, 0].tolist() == [1845, 469, 1813, 373, 309, 1045, 1781, 693]


def test_windows_are_pieces_of_the_train_split(text: Text) -> None:
    tokens = np.asarray(text.tokens("train")).astype(np.int64)
    for window in batch(text, seed=1, step=5, batch=4, context=16):
        places = np.flatnonzero(tokens[:-16] == window[0])
        assert any(np.array_equal(tokens[place : place + 17], window) for place in places)


@pytest.mark.parametrize("context", [32, 50])
def test_an_epoch_holds_each_window_once_and_nearly_every_token(text: Text, context: int) -> None:
    count = (text.train_tokens - context) // context
    numbered = numbered_text(text, text.train_tokens)
    rows = [
        row
        for step in range(math.ceil(2 * count / 8))
        for row in batch(numbered, seed=2, step=step, batch=8, context=context)
    ]
    first, second = np.array(rows[:count]), np.array(rows[count : 2 * count])
    for epoch in (first, second):
        inputs = epoch[:, :-1].ravel()
        assert len(np.unique(inputs)) == count * context
        assert (epoch[:, 1:] == epoch[:, :-1] + 1).all()
        assert text.train_tokens - len(inputs) < 2 * context
        assert (np.diff(epoch[:, 0]) != context).mean() > 0.9
    assert first[:, 0].tolist() != second[:, 0].tolist()


def numbered_text(text: Text, tokens: int) -> Text:
    """A text whose train tokens are their own places."""
    return dataclasses.replace(text, arrays={**text.arrays, "train": np.arange(tokens)})


def test_seeds_give_different_orders(text: Text) -> None:
    one, two = (batch(text, seed=seed, step=0, batch=8, context=32) for seed in (0, 1))
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 97, 1000, 12_345])
def test_a_permutation_takes_every_place_once(count: int) -> None:
    for key in (0, 1, 2**64 - 1):
        assert np.array_equal(np.sort(permuted(np.arange(count), count, key)), np.arange(count))


def test_a_permutation_shows_no_trace_of_the_old_order() -> None:
    count = 10_000
    places = np.arange(count)
    keys = [permuted(places, count, key) for key in range(20)]
    correlations = [np.corrcoef(places, found)[0, 1] for found in keys]
    assert np.abs(correlations).max() < 4 / math.sqrt(count)
    steps = np.concatenate([np.diff(found) for found in keys])
    assert len(np.unique(steps)) > 15_000
    fixed = sum(int((found == places).sum()) for found in keys)  # one each is expected
    assert 5 <= fixed <= 40


def test_repeats_count_how_often_the_text_is_gone_through(text: Text) -> None:
    assert repeats(text, 3 * text.train_tokens) == 3


def test_scoring_takes_each_token_once_in_order(text: Text) -> None:
    windows = evaluation_windows(text, "test", 24)
    tokens = np.asarray(text.tokens("test")).astype(np.int64)
    scored = windows[:, 1:].ravel()
    assert np.array_equal(scored, tokens[1 : 1 + len(scored)])
    assert len(tokens) - 1 - len(scored) < 24
    assert np.array_equal(windows[1:, 0], windows[:-1, -1])


def test_the_bytes_of_scored_tokens_are_those_of_their_text(text: Text) -> None:
    assert window_bytes(text, "test", 1) == text.bytes("test")
    for context, most in ((24, None), (24, 200), (7, 50)):
        windows = evaluation_windows(text, "test", context, most)
        table = text.tokenizer.token_bytes if text.tokenizer.backend else np.ones(256, np.uint32)
        assert table is not None
        scored = windows[:, 1:][windows[:, 1:] != text.tokenizer.end_token]
        expected = int(table[scored].sum())
        assert window_bytes(text, "test", context, most) == expected


def test_a_part_of_a_split_is_spread_evenly_over_it(text: Text) -> None:
    whole = evaluation_windows(text, "validation", 16)
    part = evaluation_windows(text, "validation", 16, 5 * 16 + 3)
    assert len(part) == 5
    places = [np.flatnonzero((whole == window).all(axis=1))[0] for window in part]
    assert np.abs(np.diff(places) - len(whole) / 5).max() <= 1
    assert len(evaluation_windows(text, "validation", 16, 10**9)) == len(whole)


def test_too_little_text_is_refused_with_its_size(text: Text) -> None:
    with pytest.raises(
        UserError, match=f"{text.train_tokens} train tokens are less than one batch of 4 windows of 99999"
    ):
        batch(text, seed=0, step=0, batch=4, context=99999)
    with pytest.raises(UserError, match=f"{text.test_tokens} test tokens are less than one window of 99999"):
        evaluation_windows(text, "test", 99999)
    shorter = min(text.validation_tokens, text.test_tokens)
    with pytest.raises(UserError, match=f"text: {shorter} .* tokens are less than one window"):
        require_windows(text, batch=1, context=shorter)
    require_windows(text, batch=2, context=16)


def test_the_bytes_of_train_tokens_are_not_guessed(text: Text) -> None:
    if text.tokenizer.backend is None:
        assert window_bytes(text, "train", 1) == text.bytes("train")
    else:
        with pytest.raises(UserError, match="bytes of train tokens are not kept"):
            window_bytes(text, "train", 1)


def test_a_batch_costs_less_than_a_tenth_of_the_smallest_training_step(text: Text) -> None:
    batch(text, seed=0, step=0, batch=16, context=128)
    seconds = []
    for step in range(200):
        start = perf_counter()
        batch(text, seed=0, step=step, batch=16, context=128)
        seconds.append(perf_counter() - start)
    assert np.median(seconds) < 1e-4  # 10–15 µs on the machine that built this


def test_an_unwritable_batch_leaves_the_text_as_it_is(text: Text) -> None:
    windows = batch(text, seed=0, step=0, batch=2, context=16)
    before = windows.copy()
    windows[:] = 0
    assert np.array_equal(batch(text, seed=0, step=0, batch=2, context=16), before)


def test_texts_with_more_tokens_than_memory_are_read_where_they_lie(text: Text, tmp_path: Path) -> None:
    path = tmp_path / "sparse.bin"
    with open(path, "wb") as file:
        file.truncate(2**41)  # two terabytes of holes
    huge = dataclasses.replace(text, arrays={**text.arrays, "train": np.memmap(path, np.uint8, "r")})
    for step in (0, 10**6):
        assert batch(huge, seed=0, step=step, batch=16, context=128).shape == (16, 129)
