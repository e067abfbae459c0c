"""The router chooses, balances, and keeps to its groups."""

from __future__ import annotations

from dataclasses import replace

import torch

from sparsedial.model.router import balance_of, bias_after, choose, route
from sparsedial.shape.ladder import Ladder

BASE = Ladder(vocab_size=64, context=16).shape(16, 8)


def test_the_bias_changes_the_choice_and_never_the_weight():
    logits = torch.zeros(4, 8)
    bias = torch.zeros(8)
    bias[5] = 1.0
    chosen, gates, _ = route(logits, bias, replace(BASE, top_k=1, routed_scaling=1.0), 1)
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
    assert route(even, None, shape, 1, 1.0)[2] < route(skewed, None, shape, 1, 1.0)[2]
