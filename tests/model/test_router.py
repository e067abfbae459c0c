"""The router chooses, balances, and keeps to its groups."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparsedial.model.router import balance_of, bias_after, choose, route, within
from sparsedial.shape.ladder import Ladder

BASE = Ladder(vocab_size=64, context=16).shape(16, 8)


def test_the_bias_changes_the_choice_and_never_the_weight():
    logits = torch.zeros(4, 8)
    bias = torch.zeros(8)
    bias[5] = 1.0
    chosen, gates, *_ = route(logits, bias, replace(BASE, routed_scaling=1.0), 1, 1)
    assert (chosen == 5).all()
    torch.testing.assert_close(gates, torch.ones(4, 1))


def test_a_token_chooses_inside_its_kept_groups():
    shape = replace(BASE, expert_groups=4, kept_groups=1, top_k=2)
    chosen = choose(torch.rand(64, 8), None, shape, shape.top_k)
    assert (chosen[:, 0] // 2 == chosen[:, 1] // 2).all()


def test_balancing_evens_out_a_skewed_router():
    make = torch.Generator().manual_seed(0)
    skew = torch.linspace(0, 2, 8)
    bias = torch.zeros(8)
    for _ in range(400):
        chosen = choose(torch.sigmoid(torch.randn(256, 8, generator=make) + skew), bias, BASE, BASE.top_k)
        bias = bias_after(bias, torch.bincount(chosen.flatten(), minlength=8), 0.01)
    assert balance_of(torch.bincount(chosen.flatten(), minlength=8)).max_over_mean < 1.3


def test_balance_counts_dead_experts():
    balance = balance_of(torch.tensor([4, 0, 2, 2]))
    assert balance.dead_experts == 1
    assert balance.max_over_mean == 2.0


def test_a_sequence_with_even_choices_has_the_least_balance_loss():
    shape = replace(BASE, top_k=1)
    even = torch.eye(8) * 4
    skewed = torch.eye(8)[[0] * 8] * 4
    assert route(even, None, shape, shape.top_k, 1, 1.0)[-1] < route(skewed, None, shape, shape.top_k, 1, 1.0)[-1]


def test_a_bias_stays_where_no_token_came():
    bias = torch.tensor([0.3, -0.2, 0.0])
    assert torch.equal(bias_after(bias, torch.zeros(3, dtype=torch.long), 0.01), bias)


def test_every_expert_but_the_needed_ones_is_dropped_by_top_p():
    gates = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1]])
    assert within(gates, 0.6).tolist() == [[1, 1, 0], [0, 1, 0]]
    assert within(gates, 0.5).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert within(gates, 1.0).tolist() == [[1, 1, 1], [1, 1, 1]]


ROUTERS = {
    "sigmoid, normalised": {},
    "softmax": {"gate": "softmax", "routing_bias": False, "normalize_gates": False, "routed_scaling": 2.0},
    "groups": {"expert_groups": 4, "kept_groups": 2},
    "top-p": {"top_p": 0.6},
    "ones": {"gate": "ones", "routing_bias": False, "normalize_gates": False},
}


@pytest.mark.parametrize("name", ROUTERS)
def test_a_token_that_visits_fewer_experts_is_routed_as_by_a_smaller_top_k(name):
    """The same choices in the same order, weights that sum to the same, nothing for the rest."""
    shape = replace(BASE, experts=8, top_k=4, **ROUTERS[name])
    make = torch.Generator().manual_seed(0)
    logits, bias, top_k = (
        torch.randn(12, 8, generator=make),
        torch.randn(8, generator=make) / 9,
        torch.arange(12) % 4 + 1,
    )
    chosen, gates, load, _ = route(logits, bias, shape, 4, 1, top_k_T=top_k)
    loads = torch.zeros(8)
    for t, k in enumerate(top_k.tolist()):
        alone, weights, load_alone, _ = route(logits[t : t + 1], bias, shape, k, 1)
        assert torch.equal(chosen[t, :k], alone[0])
        torch.testing.assert_close(gates[t, :k], weights[0])
        assert not gates[t, k:].any()
        loads += load_alone
    assert torch.equal(load, loads)


def test_the_balance_loss_is_of_the_experts_that_are_visited():
    logits = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    shape = replace(BASE, top_k=3)
    _, _, _, alone = route(logits, None, shape, 2, 1, balance_weight=1.0)
    _, _, _, among = route(logits, None, shape, 3, 1, balance_weight=1.0, top_k_T=torch.full((6,), 2))
    torch.testing.assert_close(among, alone)


# Two sequences of two tokens; of three choices a token keeps what holds 0.6 of their weight.
SHARES = torch.tensor([[8, 4, 2, 2], [8, 4, 2, 2], [2, 14, 3, 1], [2, 1, 3, 14]])
TOP_P = replace(BASE, experts=4, top_k=3, top_p=0.6, gate="softmax", routing_bias=False, routed_scaling=1.0)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_token_gives_all_its_weight_to_the_choices_that_top_p_keeps(normalize):
    shape = replace(TOP_P, normalize_gates=normalize)
    chosen, gates, *_ = route(SHARES.log(), None, shape, shape.top_k, 2)
    kept = torch.tensor([[8, 4, 0, 0], [8, 4, 0, 0], [0, 14, 0, 0], [0, 0, 0, 14]])
    expected = kept / (kept if normalize else SHARES).sum(1, keepdim=True)
    torch.testing.assert_close(torch.zeros(4, 4).scatter_(1, chosen, gates), expected)


def test_load_and_balance_loss_count_the_choices_that_top_p_keeps():
    *_, load, loss = route(SHARES.log(), None, TOP_P, TOP_P.top_k, 2, balance_weight=1.0)
    assert load.tolist() == [2, 3, 0, 1]
    share = torch.tensor([[2, 2, 0, 0], [0, 1, 0, 1]]) * 4 / torch.tensor([[4], [2]])
    mean = torch.tensor([[8, 4, 2, 2], [2, 7.5, 3, 7.5]]) / torch.tensor([[16], [20]])
    torch.testing.assert_close(loss, (share * mean).sum(1).mean())


ONES = replace(TOP_P, gate="ones", normalize_gates=False)


def test_gates_of_ones_are_chosen_as_by_a_softmax_and_weigh_alike():
    shape, top_k = replace(ONES, top_p=1.0), torch.tensor([3, 1, 2, 3])
    chosen, gates, load, _ = route(SHARES.log(), None, shape, 3, 2, top_k_T=top_k)
    assert torch.equal(chosen, route(SHARES.log(), None, replace(shape, gate="softmax"), 3, 2)[0])
    assert gates.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert int(load.sum()) == 9


def test_gates_of_ones_keep_the_choices_that_top_p_keeps():
    chosen, gates, *_ = route(SHARES.log(), None, ONES, ONES.top_k, 2)
    kept = torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    assert torch.equal(torch.zeros(4, 4).scatter_(1, chosen, gates), kept)


def test_the_router_learns_through_gates_of_ones_as_if_they_were_its_scores():
    logits, slopes = SHARES.log(), []
    for gate in ("ones", "softmax"):
        leaf = logits.clone().requires_grad_()
        _, gates, *_ = route(leaf, None, replace(ONES, gate=gate, top_p=1.0), 3, 2)
        (gates * torch.arange(12.0).view(4, 3)).sum().backward()
        slopes.append(leaf.grad)
    assert slopes[0].abs().max() > 0
    torch.testing.assert_close(*slopes)
