"""The greedy loop: the same text with a cache as by reading everything anew, of several sequences together too."""

from __future__ import annotations

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.model import greedy
from sparsedial.model.decoder import Decoder
from sparsedial.model.greedy import ALL, Vocabulary, go_on
from sparsedial.model.transformer import initialise
from sparsedial.shape.ladder import Ladder
from tests.model.shapes import FAMILIES, UNEQUAL, shaken

SHAPES = {**FAMILIES, "layers that differ": UNEQUAL}
MODEL = initialise(Ladder(vocab_size=64, context=24).shape(16, 8), 0).eval()
PROMPTS = [[3, 14, 15, 9, 2], [6], [5, 3, 5]]


def text(model, prompts, tokens, vocabulary=ALL) -> list[list[int]]:
    """What follows each prompt."""
    rows = list(go_on(model, prompts, tokens, vocabulary=vocabulary))
    return [[row[number] for row in rows if row[number] is not None] for number in range(len(prompts))]


def by_hand(model, ids: list[int], count: int) -> list[int]:
    """The likeliest tokens, reading everything anew for each, and the newer half where the context is full."""
    ids, seen = list(ids), list(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([seen]))[0, -1].argmax()))
            seen = [*seen, ids[-1]] if len(seen) < model.shape.context else ids[-(model.shape.context // 2) :]
    return ids[-count:]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", SHAPES)
def test_every_family_goes_on_as_it_reads(name, threads):
    model, before = shaken(SHAPES[name]), torch.get_num_threads()
    torch.set_num_threads(threads)
    assert text(model, [[3, 14, 15]], 20) == [by_hand(model, [3, 14, 15], 20)]
    torch.set_num_threads(before)


def test_sequences_go_on_together_as_each_would_alone_also_beyond_the_context():
    assert text(MODEL, PROMPTS, 50) == [by_hand(MODEL, prompt, 50) for prompt in PROMPTS]


def test_a_prompt_longer_than_the_context_is_read_from_its_end():
    prompt = torch.randint(64, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    assert text(MODEL, [prompt], 5) == text(MODEL, [prompt[-24:]], 5)


def test_a_sequence_stops_at_the_end_token_and_the_others_go_on(monkeypatch):
    alone = [by_hand(MODEL, prompt, 12) for prompt in PROMPTS]
    end = alone[1][3]
    expected = [row[: row.index(end)] if end in row else row for row in alone]
    assert len({len(row) for row in expected}) > 1
    stepped = []

    def step(self, ids, slots, top_k_LB):
        stepped.append(list(slots))
        return made(self, ids, slots, top_k_LB)

    made = Decoder.step
    monkeypatch.setattr(greedy.Decoder, "step", step)
    assert text(MODEL, PROMPTS, 12, Vocabulary(ends=frozenset({end}))) == expected
    assert 1 not in stepped[-1], "a sequence that has ended is still read"


def test_an_empty_prompt_is_refused():
    for prompts in ([], [[]], [[1], []]):
        with pytest.raises(UserError, match="prompt"):
            next(go_on(MODEL, prompts, 5))
