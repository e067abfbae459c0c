"""A text as windows: spread over all of it, and none of them both calibrates and scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsedial.pruning.windows import Windows, read_windows, spread
from sparsedial.records.text import SkippedLines
from sparsedial.text.tokenizer import byte_tokenizer, train_bpe


def windows(count: int, context: int = 8) -> Windows:
    ids = np.arange(count * (context + 1)).reshape(count, context + 1)
    skipped = SkippedLines(lines=0, named=())
    return Windows(source="text", digest="", skipped=skipped, ids_WS1=ids, bytes_W=np.full(count, context))


@pytest.mark.parametrize(
    ("count", "scored_tokens", "scored"), [(100, 80, 10), (100, 10_000, 20), (7, 16, 1), (2, 8, 1)]
)
def test_no_window_both_calibrates_and_scores(count, scored_tokens, scored):
    calibrating, scoring = windows(count).divided(scored_tokens)
    first = [set(each.ids_WS1[:, 0].tolist()) for each in (calibrating, scoring)]
    assert not first[0] & first[1]
    assert (len(first[0]), len(first[1])) == (count - scored, scored)
    assert scoring.tokens == 8 * scored


@pytest.mark.parametrize(("asked", "scored"), [((160, 80), 10), ((80, 160), 20), ((8, 10_000), 6), ((160, 88), 6)])
def test_as_many_windows_calibrate_and_score_as_are_asked_for_where_the_text_has_them(asked, scored):
    """Of a shorter text a fifth scores."""
    calibrating, scoring = windows(30).divided(asked[1], asked[0])
    assert (len(calibrating.ids_WS1), len(scoring.ids_WS1)) == (30 - scored, scored)


def test_a_single_window_does_both():
    calibrating, scoring = windows(1).divided(8, 8)
    assert calibrating is scoring


def test_windows_are_spread_over_the_text():
    assert spread(10, 3).tolist() == [0, 3, 6]
    assert spread(2, 3).tolist() == [0, 1]
    assert spread(5, 0).tolist() == [0]


@pytest.mark.parametrize("bpe", [False, True])
def test_windows_of_a_text_do_not_overlap_and_know_their_bytes(tmp_path: Path, bpe):
    text = "one two three four five six seven eight nine ten " * 40
    (tmp_path / "a.txt").write_text(text)
    tokenizer = train_bpe([text.encode()], 300) if bpe else byte_tokenizer()
    found = read_windows([str(tmp_path / "a.txt")], tokenizer, vocab_size=300, context=16, tokens=10**6, field="x")
    ids = [tokenizer.end_token, *tokenizer.encode(text.encode()).tolist(), tokenizer.end_token]
    count = (len(ids) - 1) // 16
    assert found.ids_WS1.tolist() == [ids[16 * at : 16 * at + 17] for at in range(count)]
    said = [len(tokenizer.decode(row[1:]).encode()) for row in found.ids_WS1]
    assert found.bytes_W.tolist() == said
    some = read_windows([str(tmp_path / "a.txt")], tokenizer, vocab_size=300, context=16, tokens=64, field="x")
    assert some.ids_WS1.tolist() == found.ids_WS1[spread(count, 4)].tolist()
    assert (some.tokens, some.context) == (64, 16)
