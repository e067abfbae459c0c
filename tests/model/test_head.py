"""Weights of positions in the training loss: what is not counted is still read, on every path of the loss."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional

from sparsedial.kernels import head as pieces
from sparsedial.kernels import native
from sparsedial.model import head
from sparsedial.model.transformer import Routing, Transformer, initialise
from tests.model.shapes import DENSE, FAMILIES, SPARSE, shaken

IDS = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))
WEIGHT = torch.rand(2, 16, generator=torch.Generator().manual_seed(1)).round(decimals=1)
SHAPES = {
    "dense": DENSE,
    "sparse": SPARSE,
    "a cap": replace(DENSE, logit_cap=2.0),
    "tied tables": replace(DENSE, tied_embeddings=True),
    "multi-token prediction": replace(SPARSE, mtp_layers=2),
    "latent attention": FAMILIES["deepseek_v3"],
}


def take(monkeypatch, kernels: str) -> None:
    """Let the loss take this path; pieces are then of five tokens."""
    if kernels != "compiled":
        monkeypatch.setattr(native, "module", None)
    if kernels == "pieces":
        monkeypatch.setattr(head, "in_pieces", lambda _: True)
        monkeypatch.setattr(pieces, "PIECE_BYTES", 5 * 4 * DENSE.vocab_size)


def by_hand(model: Transformer, mtp_weight: float) -> torch.Tensor:
    """The weighted loss in plain steps, from all logits."""

    def weighted(logits: torch.Tensor, ahead: int) -> torch.Tensor:
        each = functional.cross_entropy(logits.flatten(0, 1), IDS[:, ahead:].flatten(), reduction="none")
        weight = WEIGHT[:, ahead - 1 :].flatten()
        return (weight * each).sum() / weight.sum()

    place, routing = model.place(IDS[:, :-1]), Routing()
    stream = model.stream(IDS[:, :-1], place, routing)
    total = weighted(model.logits(stream, model.norm_D), 1)
    for depth, (module, ahead) in enumerate(model.predicted(stream, IDS, routing), start=1):
        total = total + mtp_weight / len(model.predictions) * weighted(model.logits(ahead, module.norm_D), depth + 1)
    return total


@pytest.mark.parametrize("kernels", ["compiled", "plain", "pieces"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_weighted_loss_and_its_gradients_are_those_by_hand(monkeypatch, name, kernels):
    """A weight is that of the token predicted, so at each depth of multi-token prediction it stands one further."""
    take(monkeypatch, kernels)
    model, found = shaken(SHAPES[name]), []
    parameters = dict(model.named_parameters())
    for total in (model.loss(IDS, mtp_weight=0.3, weigh=lambda each: WEIGHT)[0], by_hand(model, 0.3)):
        slopes = torch.autograd.grad(total, list(parameters.values()), allow_unused=True, materialize_grads=True)
        found.append({"loss": total.detach(), **dict(zip(parameters, slopes, strict=True))})
    for part, expected in found[1].items():
        said = partial("{}: {}".format, part)
        torch.testing.assert_close(found[0][part], expected, atol=1e-5, rtol=1e-4, msg=said)


@pytest.mark.parametrize("name", SHAPES)
def test_the_weights_follow_from_the_loss_of_each_position_and_what_is_shown_is_the_mean_of_all(name):
    model, seen = shaken(SHAPES[name]), []

    def weigh(each: torch.Tensor) -> torch.Tensor:
        seen.append(each)
        return WEIGHT

    _, shown = model.loss(IDS, weigh=weigh)
    logits = model(IDS[:, :-1]).transpose(1, 2)
    expected = functional.cross_entropy(logits, IDS[:, 1:], reduction="none")
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shown, model.loss(IDS)[1], atol=1e-6, rtol=1e-6)
    assert not shown.requires_grad


def test_a_position_that_does_not_count_is_read_all_the_same():
    """Another token there changes the loss of those after it, and its own loss changes nothing."""
    model, weight = shaken(DENSE), torch.zeros(2, 16)
    weight[:, 12] = 1.0  # the token at 13 alone
    loss = model.loss(IDS, weigh=lambda each: weight)[0]
    for changed, read in ((5, True), (14, False)):
        other = IDS.clone()
        other[:, changed] = (other[:, changed] + 1) % 64
        assert (model.loss(other, weigh=lambda each: weight)[0] == loss) != read


@pytest.mark.parametrize("kernels", ["compiled", "plain", "pieces"])
def test_a_loss_of_no_positions_is_zero_and_so_is_its_gradient(monkeypatch, kernels):
    take(monkeypatch, kernels)
    model = initialise(DENSE, 0)
    total = model.loss(IDS, weigh=torch.zeros_like)[0]
    assert total == 0
    assert all(not slope.any() for slope in torch.autograd.grad(total, list(model.parameters())))


@pytest.mark.parametrize("name", SHAPES)
def test_equal_weights_train_as_none_do(name):
    model = shaken(SHAPES[name])
    for loss in (model.loss(IDS, 0.1, 0.1, 0.3), model.loss(IDS, 0.1, 0.1, 0.3, weigh=torch.ones_like)):
        torch.testing.assert_close(loss[0], model.loss(IDS, 0.1, 0.1, 0.3)[0], atol=1e-6, rtol=1e-6)
