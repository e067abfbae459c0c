"""How much the loss minds what is missing behind a layer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sparsedial.model.router import Routing
from sparsedial.pruning import sensitivity
from sparsedial.pruning.sensitivity import sensitivities
from tests.model.shapes import FAMILIES, shaken
from tests.pruning.test_experts import IDS


@torch.no_grad()
def test_it_is_the_mean_square_of_the_slope_of_each_tokens_loss(monkeypatch):
    """By differences behind the last layer, where a token's stream decides its own loss alone."""
    monkeypatch.setattr(sensitivity, "EVEN", 0.0)
    model = shaken(FAMILIES["llama"])
    root_DD = sensitivities(model, IDS)[-1]
    x_BSD = model.stream(IDS[:, :-1], model.place(IDS[:, :-1]), Routing())

    def losses(moved_BSD: Tensor) -> Tensor:
        logits_TV = model.logits(moved_BSD, model.norm_D).flatten(0, 1)
        return functional.cross_entropy(logits_TV.double(), IDS[:, 1:].flatten(), reduction="none")

    for direction_D in torch.randn(3, 16, generator=torch.Generator().manual_seed(2)):
        step_D = 1e-2 * direction_D
        slope_T = (losses(x_BSD + step_D) - losses(x_BSD - step_D)) / 2e-2
        expected = slope_T.square().mean().float()
        torch.testing.assert_close((direction_D @ root_DD).square().sum(), expected, rtol=0.02, atol=0)


def test_what_cannot_be_told_from_few_tokens_is_taken_for_even():
    model = shaken(FAMILIES["llama"])
    product_LDD = torch.stack([root_DD @ root_DD for root_DD in sensitivities(model, IDS[:1, :3])])
    for product_DD in product_LDD:
        assert float(torch.linalg.eigvalsh(product_DD)[0]) > 0.05 * float(product_DD.diagonal().mean())


def test_weights_learn_afterwards_as_before():
    model = shaken(FAMILIES["llama"])
    model.norm_D.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    sensitivities(model, IDS)
    assert [parameter.requires_grad for parameter in model.parameters()] == before
    assert all(parameter.grad is None for parameter in model.parameters())
