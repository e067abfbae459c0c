"""FLOPs that agree are one budget."""

from __future__ import annotations

import numpy as np
import pytest

from sparsedial.law.budgets import snapped


def test_exact_budgets_stay_as_they_are():
    flops = np.repeat([1e18, 1.2e18, 3e18], 4)
    assert snapped(flops).tolist() == flops.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_budgets_with_noise_of_one_per_cent_are_found(seed):
    budgets = np.repeat(1e18 * 1.5 ** np.arange(6), 12)
    noisy = budgets * np.exp(np.random.default_rng(seed).normal(0, 0.01, len(budgets)))
    middles = snapped(noisy)
    assert len(np.unique(middles)) == 6
    assert np.abs(middles / budgets - 1).max() < 0.02
    assert (np.unique(middles[:, None] == middles[None], axis=0).sum(axis=1) == 12).all()


def test_a_few_counted_entries_do_not_move_an_exact_budget():
    assert set(snapped(np.array([1e18, 1e18, 1e18, 1.01e18, 0.99e18, 3e18]))) == {1e18, 3e18}


def test_flops_without_budgets_do_not_become_one():
    flops = np.linspace(1e18, 1e20, 5000)
    middles = snapped(flops)
    assert np.abs(middles / flops - 1).max() <= 0.0205
    assert len(np.unique(middles)) > 100
    assert (np.diff(middles) >= 0).all()


def test_budgets_a_tenth_apart_are_two():
    flops = np.array([1e18, 1.001e18, 1.1e18, 1.101e18])
    assert len(np.unique(snapped(flops))) == 2
