"""Scoring sees each token once and knows its bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.text.prepare import Text
from sparsedial.text.windows import (
    evaluation_windows,
    protocol,
    require_windows,
    scored_bytes,
    whole_windows,
    window_bytes,
)


def test_scoring_takes_each_token_once_in_order(text: Text) -> None:
    windows = evaluation_windows(text, "test", 24)
    tokens = np.asarray(text.tokens("test")).astype(np.int64)
    scored = windows[:, 1:].ravel()
    assert np.array_equal(scored, tokens[1 : 1 + len(scored)])
    assert len(tokens) - 1 - len(scored) < 24
    assert np.array_equal(windows[1:, 0], windows[:-1, -1])


def cut(text: Text, count: int) -> Text:
    return replace(text, arrays={"test": np.asarray(text.tokens("test"))[:count]})


@pytest.mark.parametrize("context", [1, 24, 10**6])
def test_every_token_can_be_scored_the_last_ones_in_a_shorter_window(text: Text, context: int) -> None:
    tokens = np.asarray(text.tokens("test"))
    for count in (len(tokens), 24 * 5 + 1, 24, 2):
        groups = whole_windows(cut(text, count), "test", context)
        assert np.array_equal(np.concatenate([group.ids[:, 1:].ravel() for group in groups]), tokens[1:count])
        assert [group.ids.shape[1] for group in groups[:-1]] == [context + 1] * (len(groups) - 1)
        assert groups[-1].ids.shape[1] <= context + 1
        assert all(group.last == group.ids.shape[1] - 1 for group in groups)
        firsts = np.concatenate([group.ids[:, 0] for group in groups])
        assert np.array_equal(firsts, tokens[: count - 1 : context])


@pytest.mark.parametrize(("context", "stride"), [(24, 1), (24, 7), (24, 12), (24, 23), (24, 24), (1, 1)])
def test_windows_that_overlap_score_each_token_once_after_all_but_a_stride_of_the_context(
    text: Text, context: int, stride: int
) -> None:
    tokens = np.asarray(text.tokens("test"))
    for count in (2, 20, 24, 25, 26, 32, 33, 300):
        groups = whole_windows(cut(text, count), "test", context, stride)
        scored = np.concatenate([group.ids[:, -group.last :].ravel() for group in groups])
        assert np.array_equal(scored, tokens[1:count])
        before = np.concatenate([np.arange(width)[-last:] for ids, last in groups for width in map(len, ids)])
        assert before.max() <= context
        assert np.array_equal(before[:context], np.arange(1, min(count, context + 1)))
        assert (before[context:] >= context - stride + 1).all()


@pytest.mark.parametrize("stride", [0, 25])
def test_a_stride_that_leaves_tokens_out_is_refused(text: Text, stride: int) -> None:
    with pytest.raises(UserError, match=rf"stride: {stride} lies outside 1\.\.24"):
        whole_windows(text, "test", 24, stride)


def test_the_protocol_says_what_stands_before_a_token() -> None:
    assert "each of 1,234 tokens is scored once, given what stands before it in its window of 24." in protocol(
        24, 24, 1234
    )
    assert "windows of 24 that move by 8: at least 17 tokens stand before each" in protocol(24, 8, 1234)
    assert protocol(24, 8, 24).endswith("given all that stands before it.")


def test_each_token_has_the_bytes_that_it_stands_for(text: Text) -> None:
    sizes = scored_bytes(text, "test")
    assert len(sizes) == text.test_tokens - 1
    assert sizes.sum(dtype=np.int64) == text.bytes("test")


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
    with pytest.raises(UserError, match=f"{text.train_tokens} train tokens are less than one batch"):
        require_windows(text, batch=4, context=99999)
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
