"""The router equals its reference, balances, and keeps to its groups."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparsedial.model.router import balance_of, bias_after, choose, reference_route, route
from sparsedial.shape.ladder import Ladder

BASE = Ladder(vocab_size=64, context=16).shape(16, 8)
VARIANTS = {
    "sigmoid": BASE,
    "softmax": replace(BASE, gate="softmax", routing_bias=False, routed_scaling=1.0),
    "softmax, not normalised": replace(BASE, gate="softmax", normalize_gates=False),
    "groups": replace(BASE, expert_groups=4, kept_groups=2),
    "softmax groups": replace(BASE, gate="softmax", expert_groups=4, kept_groups=2),
    "one choice": replace(BASE, top_k=1),
    "every expert": replace(BASE, top_k=8),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("tokens", [2, 14])
def test_the_fast_router_equals_its_reference(name, tokens):
    shape = VARIANTS[name]
    make = torch.Generator().manual_seed(0)
    logits = torch.randn(tokens, 8, generator=make)
    bias = torch.randn(8, generator=make) * 0.1
    weight = torch.randn(tokens, shape.top_k, generator=make)
    results = []
    for function in (route, reference_route):
        leaf = logits.clone().requires_grad_()
        chosen, gates, loss = function(leaf, bias, shape, 2, 0.3, 0.2)
        ((gates * weight).sum() + loss).backward()
        results.append((chosen, gates.detach(), loss.detach(), leaf.grad))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, atol=1e-6, rtol=1e-5)


def test_the_bias_changes_the_choice_and_never_the_weight():
    logits = torch.zeros(4, 8)
    bias = torch.zeros(8)
    bias[5] = 1.0
    chosen, gates, _ = reference_route(logits, bias, replace(BASE, top_k=1, routed_scaling=1.0), 1)
    assert (chosen == 5).all()
    torch.testing.assert_close(gates, torch.ones(4, 1))


def test_a_token_chooses_inside_its_kept_groups():
    shape = replace(BASE, expert_groups=4, kept_groups=1, top_k=2)
    chosen = choose(torch.rand(64, 8), None, shape)
    assert (chosen[:, 0] // 2 == chosen[:, 1] // 2).all()


def test_balancing_evens_out_a_skewed_router():
    make = torch.Generator().manual_seed(0)
    skew = torch.linspace(0, 2, 8)
    bias = torch.zeros(8)
    for _ in range(400):
        chosen = choose(torch.sigmoid(torch.randn(256, 8, generator=make) + skew), bias, BASE)
        bias = bias_after(bias, torch.bincount(chosen.flatten(), minlength=8), 0.01)
    assert balance_of(torch.bincount(chosen.flatten(), minlength=8))["max_over_mean"] < 1.3


def test_balance_counts_dead_experts():
    balance = balance_of(torch.tensor([4, 0, 2, 2]))
    assert balance["dead_experts"] == 1
    assert balance["max_over_mean"] == 2.0


def test_a_sequence_with_even_choices_has_the_least_balance_loss():
    shape = replace(BASE, top_k=1)
    even = torch.eye(8) * 4
    skewed = torch.eye(8)[[0] * 8] * 4
    assert reference_route(even, None, shape, 1, 1.0)[2] < reference_route(skewed, None, shape, 1, 1.0)[2]
