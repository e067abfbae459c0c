"""What messages carry, and when they go: of one process that stands for the first of two ranks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsedial.model.transformer import initialise
from sparsedial.model.working import Working
from sparsedial.training import messages
from sparsedial.training.exchange import Exchange
from sparsedial.training.messages import in_order
from sparsedial.training.optimizer import make_optimizers
from sparsedial.training.owners import owners
from sparsedial.training.ranks import UnderWay
from tests.training.ranked import MUON, RECIPE, SPARSE

IDS = torch.randint(256, (3, 33), generator=torch.Generator().manual_seed(0))


class Silent:
    """The first of two ranks, to which the other one sends zeros."""

    count, index, device, partners = 2, 0, "cpu", (1,)

    def __init__(self) -> None:
        self.sent = list[Tensor]()

    def reduce_scatter(self, sent: Tensor) -> UnderWay:
        self.sent.append(sent.clone())
        return UnderWay(SimpleNamespace(wait=lambda: None), sent, torch.zeros_like(sent))


@pytest.fixture(autouse=True)
def _small_messages(monkeypatch) -> None:
    monkeypatch.setitem(messages.MESSAGE_BYTES, "cpu", 2**12)


@pytest.mark.parametrize("recipe", [RECIPE, MUON], ids=["adamw", "muon"])
def test_each_gradient_is_sent_to_its_owner_or_kept(recipe):
    """Half of it, which with the other rank's half is the mean; no other gradient is left."""
    model, ranks = initialise(SPARSE, 0), Silent()
    model.loss(IDS, 1e-3)[0].backward()
    whole = [weight.grad.flatten() / 2 for weight in model.parameters() if weight.grad is not None]
    given: Any = ranks
    exchange = Exchange(model, make_optimizers(model, recipe, given), Working(model, "float32"), recipe, given)
    exchange.forget_gradients()
    kept = exchange.backward(model.loss(IDS, 1e-3)[0])
    own = [part for part in owners(model, recipe, 2) if part.owner == 0]
    assert len(kept) == len(own)
    for part, gradient in zip(own, kept, strict=True):
        expected = whole[part.weight][part.first : part.last]
        torch.testing.assert_close(gradient.flatten(), expected, rtol=1e-5, atol=1e-8)
    sent = messages.messages(in_order(owners(model, recipe, 2), model), 2, "cpu")
    for message, row in zip(sent, ranks.sent, strict=True):
        for piece in (piece for piece in message.pieces if piece.owner == 1):
            expected = whole[piece.weight][piece.first : piece.first + piece.size]
            found = row[0, piece.place : piece.place + piece.size]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)
    left = [number for number, weight in enumerate(model.parameters()) if weight.grad is not None]
    wholly = {part.weight for part in own if part.values == whole[part.weight].numel()}
    assert set(left) == wholly


@pytest.mark.parametrize("recipe", [RECIPE, MUON], ids=["adamw", "muon"])
def test_messages_carry_every_value_once_and_know_the_last_of_each_weight(recipe):
    """There its gradient is dropped."""
    model = initialise(SPARSE, 0)
    sent = messages.messages(in_order(owners(model, recipe, 3), model), 3, "cpu")
    found = [torch.zeros(weight.numel(), dtype=torch.int64) for weight in model.parameters()]
    last = dict[int, int]()
    for number, message in enumerate(sent):
        for piece in message.pieces:
            found[piece.weight][piece.first : piece.first + piece.size] += 1
            assert piece.place + piece.size <= message.slot
            last[piece.weight] = number
    assert all(bool((one == 1).all()) for one in found)
    assert len(sent) > 9
    assert last == {weight: number for number, message in enumerate(sent) for weight in message.last_of}
