"""Coefficients that a design cannot tell are named with those that can take their place."""

from __future__ import annotations

import numpy as np
import pytest

from sparsedial.law.fit import fit
from sparsedial.law.law import Law
from tests.law.test_fit import table


def dense(size: np.ndarray, tokens: np.ndarray) -> Law:
    """A chinchilla law fitted to runs of 0.3 % noise."""
    loss = 1.7 + 400 / size**0.34 + 1500 / tokens**0.36
    noise = np.exp(np.random.default_rng(0).normal(0, 0.003, len(loss)))
    return fit({"total_parameters": size, "tokens": tokens, "loss": loss * noise}, "chinchilla", bootstrap=40)


SIZES = np.geomspace(3e7, 3e9, 14)


def test_one_ratio_of_tokens_to_parameters_leaves_size_and_tokens_to_trade():
    law = dense(SIZES, 20 * SIZES)
    for own in ("A", "alpha"):
        assert {"B", "beta"} & set(law.open_coefficients[own])
    for own in ("B", "beta"):
        assert {"A", "alpha"} & set(law.open_coefficients[own])
    assert {"A", "alpha", "B", "beta"} <= set(law.undetermined)


def test_a_ratio_that_steps_round_by_a_percent_is_one_ratio():
    law = dense(SIZES, 20 * SIZES * (1 + 0.01 * (-1.0) ** np.arange(14)))
    assert {"A", "alpha", "B", "beta"} <= set(law.open_coefficients)


def test_one_number_of_tokens_leaves_the_floor_to_trade_with_the_tokens_term():
    law = dense(SIZES, np.full(14, 2e10))
    assert "B" in law.open_coefficients["E"]
    assert "E" in law.open_coefficients["B"]
    assert "beta" in law.open_coefficients
    assert not {"A", "alpha"} & set(law.open_coefficients)


def test_one_size_leaves_the_floor_to_trade_with_the_size_term():
    law = dense(np.full(14, 1e8), 20 * SIZES)
    assert "A" in law.open_coefficients["E"]
    assert "alpha" in law.open_coefficients
    assert not {"B", "beta"} & set(law.open_coefficients)


def test_a_grid_of_sizes_and_tokens_leaves_nothing_open():
    size, tokens = (grid.ravel() for grid in np.meshgrid(SIZES[::3], 20 * SIZES[::3]))
    assert dense(size, tokens).open_coefficients == {}


@pytest.mark.parametrize(
    ("form", "partners"),
    [
        ("chinchilla_sparsity", {"mu": ("a",), "a": ("mu",)}),
        ("sparsity_and_tokens", {"mu": ("a",), "a": ("mu",), "nu": ("b",), "b": ("nu",)}),
    ],
)
def test_one_sparsity_leaves_its_power_to_trade_with_the_scale(form, partners):
    rows, _ = table(form, sparsities=(0.75,), budgets=6, noise=0.003)
    del rows["flops"]
    assert fit(rows, form, bootstrap=40).open_coefficients == partners


def test_abnars_terms_trade_in_pairs_on_runs_of_one_sparsity():
    rows, _ = table("abnar", sparsities=(0.75,), budgets=6, noise=0.003)
    del rows["flops"]
    law = fit(rows, "abnar", bootstrap=40)
    assert "d" in law.open_coefficients["a"]
    assert "e" in law.open_coefficients["c"]
    assert "beta" not in law.open_coefficients


def test_a_coefficient_without_effect_has_no_partner_and_widens_nothing():
    """The direction that a decomposition invents for it must not count as leverage."""
    rows, _ = table("chinchilla_sparsity", sparsities=(0.0,), budgets=6, noise=0.003)
    law, without = fit(rows, "chinchilla_sparsity"), fit(rows, "chinchilla_sparsity", pin={"mu": 0.0})
    assert law.open_coefficients == {"mu": ()}
    assert law.undetermined == ("mu",)
    for name in ("e", "a", "b", "alpha", "beta"):
        assert law.intervals[name] == pytest.approx(without.intervals[name], rel=1e-3), name


def test_a_signed_scale_whose_interval_lies_below_0_is_determined():
    rows, _ = table("clark", noise=0.003, sparsities=(0.0, 0.5, 0.75, 0.9, 0.95))
    law = fit(rows, "clark", pin={"E_start": 1.9, "E_max": 300.0})
    assert law.intervals["a"][1] < 0
    assert "a" not in law.undetermined
