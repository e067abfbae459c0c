"""Training sees each window once an epoch in a known order, whatever the number of ranks."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.text import sampler as module
from sparsedial.text.prepare import Text, open_text
from sparsedial.text.sampler import Sampler, repeats


def sampler(text: Text, *, seed: int = 0, sequences: int = 8, context: int = 32, ranks: int = 1) -> Sampler:
    return Sampler(text=text, seed=seed, sequences=sequences, context=context, ranks=ranks)


def test_the_same_step_gives_the_same_batch_in_a_new_process(text: Text) -> None:
    steps = [0, 7, 1000, 123_456]
    first = [sampler(text, seed=3).batch(step) for step in steps]
    module._first_tokens.cache_clear()
    again = sampler(open_text(text.folder), seed=3)
    for step, windows in zip(reversed(steps), reversed(first), strict=True):
        assert np.array_equal(again.batch(step), windows)
    assert first[0].shape == (8, 33)
    assert first[0].dtype == np.int64


def test_the_order_of_windows_stays_as_it_was_when_runs_were_recorded(text: Text) -> None:
    # a change here changes every run: raise the recipe's version with it
    windows = sampler(numbered_text(text, 2000), seed=5).batch(0)
    assert windows[:, 0].tolist() == [1845, 469, 1813, 373, 309, 1045, 1781, 693]


def test_windows_are_pieces_of_the_train_split(text: Text) -> None:
    tokens = np.asarray(text.tokens("train")).astype(np.int64)
    for window in sampler(text, seed=1, sequences=4, context=16).batch(5):
        places = np.flatnonzero(tokens[:-16] == window[0])
        assert any(np.array_equal(tokens[place : place + 17], window) for place in places)


@pytest.mark.parametrize("context", [32, 50])
def test_an_epoch_holds_each_window_once_and_nearly_every_token(text: Text, context: int) -> None:
    count = (text.train_tokens - context) // context
    numbered = sampler(numbered_text(text, text.train_tokens), seed=2, context=context)
    rows = [row for step in range(math.ceil(2 * count / 8)) for row in numbered.batch(step)]
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
    one, two = (sampler(text, seed=seed).batch(0) for seed in (0, 1))
    assert not np.array_equal(one, two)


def test_repeats_count_how_often_the_text_is_gone_through(text: Text) -> None:
    assert repeats(text, 3 * text.train_tokens) == 3


def test_a_batch_costs_less_than_a_tenth_of_the_smallest_training_step(text: Text) -> None:
    batches = sampler(text, sequences=16, context=128)
    batches.batch(0)
    seconds = []
    for step in range(200):
        start = perf_counter()
        batches.batch(step)
        seconds.append(perf_counter() - start)
    assert np.median(seconds) < 1e-4  # 10–15 µs on the machine that built this


def test_an_unwritable_batch_leaves_the_text_as_it_is(text: Text) -> None:
    batches = sampler(text, sequences=2, context=16)
    windows = batches.batch(0)
    before = windows.copy()
    windows[:] = 0
    assert np.array_equal(batches.batch(0), before)


def test_texts_with_more_tokens_than_memory_are_read_where_they_lie(text: Text, tmp_path: Path) -> None:
    path = tmp_path / "sparse.bin"
    with open(path, "wb") as file:
        file.truncate(2**41)  # two terabytes of holes
    huge = dataclasses.replace(text, arrays={**text.arrays, "train": np.memmap(path, np.uint8, "r")})
    batches = sampler(huge, sequences=16, context=128)
    for step in (0, 10**6):
        assert batches.batch(step).shape == (16, 129)


@pytest.mark.parametrize("ranks", [2, 3, 12])
@pytest.mark.parametrize("step", [0, 340, 341, 100_000])  # 341 is the last whole block of 4096 windows
def test_the_batches_of_the_ranks_make_up_the_batch_of_one(text: Text, ranks: int, step: int) -> None:
    alone, together = (sampler(text, sequences=12, ranks=count) for count in (1, ranks))
    parts = [together.batch(step, rank) for rank in range(ranks)]
    assert {part.shape for part in parts} == {(12 // ranks, 33)}
    assert np.array_equal(np.concatenate(parts), alone.batch(step))


def test_ranks_that_cannot_divide_a_batch_evenly_are_refused(text: Text) -> None:
    with pytest.raises(UserError, match="batch of 8 sequences cannot be divided evenly among 3 ranks"):
        sampler(text, sequences=8, ranks=3)
    for rank in (-1, 2):  # the windows of another step's
        with pytest.raises(IndexError, match=f"rank {rank} of 2"):
            sampler(text, ranks=2).batch(0, rank)


def test_a_text_smaller_than_a_batch_is_refused_with_its_size(text: Text) -> None:
    with pytest.raises(
        UserError, match=f"{text.train_tokens} train tokens are less than one batch of 4 windows of 9999"
    ):
        sampler(text, sequences=4, context=99999)
