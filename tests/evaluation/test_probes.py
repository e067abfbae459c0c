"""Scores of models whose answers are known: bits per byte, exact match, chance and the chance of guessing as well."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from sparsedial.evaluation.probes import chance, probe_scores, score
from sparsedial.evaluation.scorer import Continuation, Scorer
from sparsedial.evaluation.statistics import share_interval
from sparsedial.text.probes import Item, items
from sparsedial.text.tokenizer import byte_tokenizer, train_bpe
from tests.evaluation.test_loss import uniform

SEED = 0


def item(answer: str, asked: str = "", group: str = "") -> Item:
    prompt = "Trade of Ivo:"
    return Item(kind="facts", level="people_8", prompt=prompt, answer=answer, asked=asked, group=group or answer)


def test_a_uniform_model_over_256_bytes_answers_at_8_bits_per_byte():
    scores = probe_scores(Scorer(uniform(256)), byte_tokenizer(), SEED)
    fitting = Counter((one.kind, one.level) for one in items(SEED) if len(one.prompt + one.answer) <= 32)
    assert {(kind, level): one.items for kind, levels in scores.items() for level, one in levels.items()} == fitting
    for levels in scores.values():
        for one in levels.values():
            assert one.answer_bits_per_byte.mean == pytest.approx(8.0, rel=1e-6)
            assert one.exact.mean == 0
            assert one.at_chance


def test_bits_are_of_the_answers_bytes_whatever_the_tokens():
    tokenizer = train_bpe([b"Trade of Ivo: baker.\n" * 50], 280)
    scores = probe_scores(Scorer(uniform(tokenizer.vocab_size)), tokenizer, SEED)
    asked = [one for one in items(SEED) if one.level == "people_8"]
    ids = [[tokenizer.encode(f"\n{text}".encode()) for text in (one.prompt, one.prompt + one.answer)] for one in asked]
    tokens = [len(whole) - len(prompt) for prompt, whole in ids]
    assert any(count < len(one.answer) for one, count in zip(asked, tokens, strict=True))
    each = math.log2(tokenizer.vocab_size)
    expected = [each * count / len(one.answer.encode()) for one, count in zip(asked, tokens, strict=True)]
    found = scores["facts"]["people_8"]
    assert (found.items, found.answer_bits_per_byte.mean) == (len(asked), pytest.approx(sum(expected) / len(expected)))


def test_an_answer_is_right_where_each_of_its_tokens_is_the_likeliest():
    answers = [Continuation(-1.0, 7, right) for right in (True, True, False, False)]
    asked = [item(" baker.\n", group=name) for name in "abcd"]
    found = score(list(zip(asked, answers, strict=True)))
    assert (found.items, found.exact.mean) == (4, 0.5)
    assert found.exact.low < 0.1 < 0.9 < found.exact.high  # few items say little
    assert found.answer_bits_per_byte.mean == pytest.approx(1 / math.log(2) / 8)


def test_the_end_of_the_line_belongs_to_the_answer_so_that_a_prefix_does_not_count():
    assert all(one.answer.endswith("\n") for one in items(SEED))
    assert {"1", "18"} <= {one.answer.strip() for one in items(SEED)} | {"1"}


def test_chance_is_what_the_best_constant_answer_to_each_thing_asked_for_gets():
    towns = [item(answer, "town") for answer in (" Faro.\n", " Faro.\n", " Faro.\n", " Lyon.\n")]
    trades = [item(answer, "trade") for answer in (" clerk.\n", " baker.\n")]
    assert chance(towns) == 0.75
    assert chance([*towns, *trades]) == pytest.approx(4 / 6)


@pytest.mark.parametrize(("right", "at_chance"), [(16, False), (9, False), (6, True), (0, True)])
def test_guessing_is_told_from_knowing(right: int, at_chance: bool):
    asked = [item(f" {number % 4}.\n", group=str(number)) for number in range(16)]  # a guess gets a quarter
    answers = [Continuation(-1.0 - number / 16, 4, number < right) for number in range(16)]
    found = score(list(zip(asked, answers, strict=True)))
    assert found.chance == 0.25
    assert found.at_chance == at_chance
    tail = [math.comb(16, count) * 0.25**count * 0.75 ** (16 - count) for count in range(right, 17)]
    assert found.p_value == pytest.approx(sum(tail))


def test_items_that_are_right_together_are_called_above_chance_no_more_often_than_others():
    """3+4 and 4+3 have one answer: of a model that guesses both alike, 5 % of levels at most are above chance."""
    draw, wrongly = random.Random(1), 0
    for _ in range(400):
        asked = [item(f" {number // 2 % 4}.\n", group=str(number // 2)) for number in range(80)]
        right = [draw.random() < 0.25 for _ in range(40)]
        answers = [Continuation(-1.0, 4, right[number // 2]) for number in range(80)]
        found = score(list(zip(asked, answers, strict=True)))
        wrongly += not found.at_chance
    assert wrongly <= 0.06 * 400


@pytest.mark.parametrize("right", [0, 80])
def test_none_right_of_pairs_says_as_little_as_none_of_half_as_many(right: int):
    asked = [item(f" {number // 2 % 4}.\n", group=str(number // 2)) for number in range(80)]
    found = score([(one, Continuation(-1.0, 4, number < right)) for number, one in enumerate(asked)])
    assert found.exact == share_interval(right // 2, 40)


def test_the_interval_counts_groups_and_not_items():
    apart = [(item(" baker.\n", group=str(number)), Continuation(-1.0 - number, 8, True)) for number in range(8)]
    alone, four = (score(answered).answer_bits_per_byte for answered in (apart, 4 * apart))
    assert four.high - four.low == pytest.approx(alone.high - alone.low, rel=0.01)
