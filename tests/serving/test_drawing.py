"""Tokens of several answers are drawn as each would be alone, and what is wrong with one is its own."""

from __future__ import annotations

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.serving.drawing import draw_each, draws_of
from sparsedial.serving.generation import draw
from sparsedial.serving.sampling import Sampling
from tests.serving.answering import GREEDY

LOGITS_BV = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
HOWS = [GREEDY, Sampling(temperature=2.0, seed=1), Sampling(temperature=2.0, top_k=3, seed=1), Sampling(seed=2)]


def drawn_alone(row: int, times: int) -> list[int]:
    chance = torch.Generator().manual_seed(HOWS[row].seed)
    return [draw(LOGITS_BV[row : row + 1], HOWS[row], [chance])[0] for _ in range(times)]


def test_each_answer_is_drawn_by_its_own_rule_and_chance():
    draws = [draws_of(sampling) for sampling in HOWS]
    drawn = [draw_each(LOGITS_BV, draws) for _ in range(5)]
    assert [[tokens[row] for tokens in drawn] for row in range(4)] == [drawn_alone(row, 5) for row in range(4)]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("hows", [HOWS, [GREEDY] * 4])
def test_logits_of_which_none_can_be_drawn_are_the_trouble_of_their_answer(wrong, hows):
    logits_BV = LOGITS_BV.clone()
    logits_BV[3, 7] = wrong
    sound, tokens = (
        draw_each(LOGITS_BV, [draws_of(how) for how in hows]),
        draw_each(logits_BV, [draws_of(how) for how in hows]),
    )
    assert tokens[:3] == sound[:3]
    if hows[3].temperature == 0 and wrong == float("inf"):
        assert tokens[3] == 7
    else:
        assert isinstance(tokens[3], UserError if wrong != wrong else RuntimeError)


def test_a_token_that_was_written_gets_less_likely_each_time_and_a_bias_is_added():
    """As OpenAI writes it: mu[j] - c[j] * frequency - (c[j] > 0) * presence, with the bias in mu."""
    how = {"frequency_penalty": 0.5, "presence_penalty": 1.25, "logit_bias": ((4, 2.0), (7, -100.0))}
    logits_1V, written = torch.zeros(1, 9), [0] * 9
    logits_1V[0, 2] = 2.9
    before, greedy, drawn = logits_1V.clone(), draws_of(Sampling(temperature=0.0, **how)), []
    for _ in range(12):
        adjusted = [
            value + dict(how["logit_bias"]).get(token, 0.0) - count * 0.5 - (count > 0) * 1.25
            for (token, value), count in zip(enumerate(before[0].tolist()), written, strict=True)
        ]
        (token,) = draw_each(logits_1V, [greedy])
        assert token == adjusted.index(max(adjusted))
        written[token] += 1
        drawn.append(token)
    assert len(set(drawn)) > 3
    assert 7 not in drawn
    assert torch.equal(logits_1V, before), "the logits of others are as they were"


def test_answers_beside_one_with_penalties_are_drawn_as_alone():
    penal = Sampling(temperature=1.0, seed=5, presence_penalty=2.0)
    alone, beside = ([draws_of(how) for how in HOWS] for _ in range(2))
    for _ in range(5):
        *others, _ = draw_each(torch.cat([LOGITS_BV, LOGITS_BV[:1]]), [*beside, draws_of(penal)])
        assert others == draw_each(LOGITS_BV, alone)
    assert not any(draws.written for draws in beside)


def test_an_id_of_no_token_is_not_drawn_whatever_its_bias():
    logits_1V = torch.zeros(1, 9)
    logits_1V[0, 3] = float("-inf")  # as the vocabulary's mask leaves it
    (token,) = draw_each(logits_1V, [draws_of(Sampling(temperature=0.0, logit_bias=((3, 100.0),)))])
    assert token != 3
