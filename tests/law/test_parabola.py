"""The iso-FLOP method: exact where it is exact, and its bias where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from sparsedial.law.fit import fit
from sparsedial.law.optimum import allocations
from sparsedial.records.optimum import Parabolas

BUDGETS = 1e18 * 10.0 ** np.arange(0, 3.1, 0.5)


def grid(alpha: float, beta: float, *, drift: float = 0.0, noise: float = 0.0, width: float = 1.0, seed: int = 0):
    """Seven sizes for each budget, about the best one or, with a drift, more and more beside it."""
    rows = []
    for step, budget in enumerate(BUDGETS):
        best = (alpha / beta) ** (1 / (alpha + beta)) * (budget / 6) ** (beta / (alpha + beta))
        for size in best * 10.0 ** (np.linspace(-width, width, 7) + drift * step):
            rows.append((size, budget / (6 * size), budget))
    size, tokens, flops = np.array(rows).T
    loss = 1.7 + 400 * size**-alpha + 400 * tokens**-beta
    loss = loss * np.exp(np.random.default_rng(seed).normal(0, noise, len(loss)))
    return {"total_parameters": size, "tokens": tokens, "flops": flops, "loss": loss}


def found(rows, bootstrap: int = 0) -> Parabolas | str:
    splits, _ = allocations(fit(rows, "chinchilla", bootstrap=bootstrap), rows)
    assert splits is not None
    return splits[0].parabolas or str(splits[0].parabolas_reason)


def test_on_a_symmetric_surface_with_centred_grids_the_method_is_exact():
    parabolas = found(grid(0.31, 0.31))
    assert parabolas.size_exponent.value == pytest.approx(0.5, abs=1e-6)
    assert parabolas.tokens_exponent.value == pytest.approx(0.5, abs=1e-6)
    for minimum in parabolas.minima:
        assert minimum.size == pytest.approx((minimum.flops / 6) ** 0.5, rel=1e-6)
        assert minimum.tokens == pytest.approx((minimum.flops / 6) ** 0.5, rel=1e-6)


def test_unequal_exponents_shift_the_minima_but_not_the_power():
    parabolas = found(grid(0.46, 0.2))
    assert parabolas.size_exponent.value == pytest.approx(0.2 / 0.66, abs=1e-4)
    last = parabolas.minima[-1]
    best = (0.46 / 0.2) ** (1 / 0.66) * (last.flops / 6) ** (0.2 / 0.66)
    assert not 0.95 < last.size / best < 1.05


def test_drifting_grids_shift_the_power_and_the_laws_own_losses_show_by_how_much():
    rows = grid(0.46, 0.2, drift=0.08)
    parabolas = found(rows)
    assert parabolas.size_exponent.value < 0.2 / 0.66 - 0.01
    assert parabolas.size_exponent_on_law == pytest.approx(parabolas.size_exponent.value, abs=2e-3)
    assert "drift" in parabolas.bias


def test_the_intervals_of_the_powers_hold_them_and_grow_with_the_scatter():
    inside, widths = [], []
    for noise in (0.001, 0.004):
        for seed in range(8):
            size = found(grid(0.31, 0.31, noise=noise, seed=seed), bootstrap=60).size_exponent
            inside.append(size.low <= 0.5 <= size.high)
            widths.append(size.high - size.low)
    assert np.mean(inside) >= 0.7  # 90 % nominal; sixteen tables are few
    assert 2 < np.mean(widths[8:]) / np.mean(widths[:8]) < 8


def test_budgets_without_three_sizes_about_a_minimum_are_left_out():
    rows = grid(0.31, 0.31)
    small = np.arange(len(rows["loss"])) % 7
    first = rows["flops"] == BUDGETS[0]
    kept = {name: values[~first | (small < 4)] for name, values in rows.items()}  # falls to the largest size
    parabolas = found(kept)
    assert (len(parabolas.minima), parabolas.budgets_left_out) == (len(BUDGETS) - 1, 1)
    two = {
        name: np.concatenate([values[(small == 2)], values[small == 4], values[small == 3][:1]])
        for name, values in rows.items()
    }
    assert "parabolas need two" in found(two)


def test_seeds_of_one_size_are_no_three_sizes():
    rows = grid(0.31, 0.31)
    one = {name: np.repeat(values[3::7], 3) for name, values in rows.items()}
    more = {name: np.concatenate([values, rows[name][rows["flops"] == BUDGETS[0]]]) for name, values in one.items()}
    assert "parabolas need two" in found(more)
