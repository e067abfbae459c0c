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
