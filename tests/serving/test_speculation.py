"""Self-speculation: the greedy text, in fewer passes where drafts are right."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.model.greedy import Vocabulary
from sparsedial.model.transformer import Transformer, initialise
from sparsedial.serving import speculation
from sparsedial.serving.generation import generate
from sparsedial.serving.sampling import Sampling
from sparsedial.serving.speculation import Drafts, speculate
from tests.model.shapes import SPARSE, shaken

GREEDY = Sampling(temperature=0.0)
SHAPE = replace(SPARSE, mtp_layers=1)


@pytest.fixture(scope="module")
def learnt() -> Transformer:
    """A model and a module that know the text 1 to 8, again and again."""
    model = initialise(SHAPE, 0)
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8] * 4])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(60):
        total, _ = model.loss(ids, mtp_weight=1.0)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("length", [1, 2, 3, 10, 40])
def test_self_speculation_gives_the_greedy_text(learnt, length):
    """Beyond the context of 32 too, where drafts are right and where they are not."""
    for model in (learnt, shaken(SHAPE)):
        for prompt in ([1, 2, 3], [9], [4, 4]):
            assert list(speculate(model, prompt, length)) == list(generate(model, prompt, length, GREEDY))


def test_drafts_of_what_was_learnt_are_right_and_save_passes(learnt):
    drafts, passes = Drafts(), []
    hook = learnt.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    assert list(speculate(learnt, [1, 2, 3], 11, drafts=drafts)) == [4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6]
    hook.remove()
    assert (drafts.made, drafts.accepted) == (5, 5)
    assert len(passes) == 1 + 5  # the prompt's, then two tokens each


def test_drafts_of_what_was_not_learnt_are_told_from_right_ones():
    drafts = Drafts()
    list(speculate(shaken(SHAPE), [9], 20, drafts=drafts))
    assert drafts.accepted < drafts.made


@pytest.mark.parametrize("end", range(1, 9))
def test_speculation_stops_at_the_end_token_also_where_it_was_drafted(learnt, end):
    """Every other token is a draft, so each of two prompts meets some ends as drafts."""
    for prompt in ([1, 2, 3], [1, 2, 3, 4]):
        text = list(speculate(learnt, prompt, 12, vocabulary=Vocabulary(ends=frozenset({end}))))
        assert text == list(generate(learnt, prompt, 12, GREEDY, vocabulary=Vocabulary(ends=frozenset({end}))))
        assert len(text) < 8


def test_drafts_are_of_the_module_that_predicts_the_next_token_but_one():
    model, called = shaken(replace(SHAPE, mtp_layers=2)), []
    for number, module in enumerate(model.predictions):
        module.register_forward_hook(lambda *_, number=number: called.append(number))
    list(speculate(model, [1, 2, 3], 6))
    assert set(called) == {0}


@pytest.mark.parametrize(("tokens", "room"), [(6, 9), (100, 32)])
def test_speculation_takes_no_more_cache_than_its_text(monkeypatch, tokens, room):
    lengths = []

    def cache(shape, sequences, length, *rest):
        lengths.append(length)
        return made(shape, sequences, length, *rest)

    made = speculation.Cache
    monkeypatch.setattr(speculation, "Cache", cache)
    assert len(list(speculate(shaken(SHAPE), [1, 2, 3], tokens))) == tokens
    assert lengths == [room]


def test_a_model_without_a_drafting_module_is_refused():
    with pytest.raises(UserError, match="no module of multi-token prediction to draft with"):
        next(iter(speculate(initialise(SPARSE, 0), [1], 2)))
