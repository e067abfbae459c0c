"""The best size and tokens for a budget: as the formulas say, with intervals from the law's samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from sparsedial.law.fit import fit
from sparsedial.law.law import Law
from sparsedial.law.optimum import allocations
from sparsedial.records.optimum import Allocation
from tests.law.test_fit import TRUTH, table


def law_of(form: str, **changes: Any) -> tuple[Law, dict[str, np.ndarray]]:
    """A law of a form's true coefficients, and the table of its runs."""
    rows, _ = table(form)
    law = fit(rows, form, bootstrap=0)
    names = law.as_form.coefficients
    return replace(law, coefficients=dict(zip(names, TRUTH[form], strict=True)) | changes, samples=()), rows


def splits(law: Law, rows: dict[str, np.ndarray], *at: float) -> tuple[Allocation, ...]:
    found, _ = allocations(law, rows, at)
    assert found is not None
    return found


def closed(law: Law, budget: float, factor: float) -> float:
    """The best size of Chinchilla's form. Source: Hoffmann et al. 2022 (arXiv 2203.15556), equation 4"""
    scale, other, alpha, beta = (law.coefficients[name] for name in ("A", "B", "alpha", "beta"))
    return (alpha * scale / (beta * other)) ** (1 / (alpha + beta)) * (budget / factor) ** (beta / (alpha + beta))


@pytest.mark.parametrize("factor", [6.0, 9.0])
def test_the_best_size_is_that_of_the_closed_formula(factor):
    law, rows = law_of("chinchilla")
    size = rows["total_parameters"]
    rows = {**rows, "flops": factor * size * rows["tokens"]}
    (split,) = splits(law, rows, 1e12, 1e20)
    assert split.flops_factor == pytest.approx(factor)
    assert split.size_exponent.value == pytest.approx(0.28 / 0.62, rel=1e-5)
    assert split.tokens_exponent.value == pytest.approx(0.34 / 0.62, rel=1e-5)
    for best in split.at:
        assert best.size.value == pytest.approx(closed(law, best.flops, factor), rel=1e-5)
        assert best.size.value * best.tokens.value * factor == pytest.approx(best.flops)
        shape = {"total_parameters": best.size.value, "tokens": best.tokens.value}
        assert best.loss.value == pytest.approx(law.loss(**shape))
        assert (best.size.low, best.loss.high) == (None, None)


def test_by_default_the_largest_budget_and_ten_times_it_are_split_and_the_second_is_said_to_lie_beyond():
    law, rows = law_of("chinchilla")
    (split,) = splits(law, rows)
    most = rows["flops"].max()
    assert [best.flops for best in split.at] == pytest.approx([most, 10 * most])
    assert split.at[1].beyond["flops"] == pytest.approx(10)
    assert "flops" not in split.at[0].beyond


def test_the_intervals_hold_the_truth_and_reach_to_both_sides_of_the_fit():
    inside = []
    for seed in range(10):
        rows, _ = table("chinchilla", seed=seed)
        (split,) = splits(fit(rows, "chinchilla", bootstrap=60, seed=seed), rows, 1e12)
        truth, _ = law_of("chinchilla")
        size = closed(truth, 1e12, split.flops_factor)
        for estimate, true in ((split.size_exponent, 0.28 / 0.62), (split.at[0].size, size)):
            assert estimate.low <= estimate.value <= estimate.high
            inside.append(estimate.low <= true <= estimate.high)
        tokens = split.tokens_exponent
        assert tokens.high == pytest.approx(1 - split.size_exponent.low)
        assert tokens.low == pytest.approx(1 - split.size_exponent.high)
    assert np.mean(inside) >= 0.7  # 90 % nominal; ten tables are few


@pytest.mark.parametrize("form", sorted(set(TRUTH) - {"clark", "chinchilla"}))
def test_a_form_with_tokens_splits_budgets_at_each_sparsity_of_the_table(form):
    law, rows = law_of(form)
    found = splits(law, rows, 1e12)
    levels = next((name for name in ("sparsity", "experts") if name in law.as_form.variables), None)
    assert len(found) == (3 if levels else 1)
    for split in found:
        (best,) = split.at
        names = {split.size: best.size.value, "tokens": best.tokens.value, **split.held}
        if form == "zhao":
            names["total_parameters"] = best.size.value * np.median(
                rows["total_parameters"] / rows["active_parameters"]
            )
        for other in (0.98, 1.02):
            near = {**names, split.size: names[split.size] * other, "tokens": names["tokens"] / other}
            near["total_parameters"] = names.get("total_parameters", 0) * other
            assert law.loss(**near) > law.loss(**names)


def test_a_form_without_tokens_says_that_it_knows_no_best_size():
    law, rows = law_of("clark")
    assert allocations(law, rows) == (None, "clark has no term for tokens, so it knows no best size for a budget")


def test_a_law_whose_loss_falls_with_size_for_ever_gives_no_best_size_and_no_exponent():
    law, rows = law_of("chinchilla", B=0.0)
    (split,) = splits(law, rows)
    assert (split.at, split.size_exponent) == (None, None)
    assert "ever larger sizes" in split.at_reason


def test_samples_without_a_best_size_leave_that_end_open():
    law, rows = law_of("chinchilla")
    without = (1.7, 400.0, 0.0, 0.34, 0.28)
    law = replace(law, samples=(tuple(TRUTH["chinchilla"]),) * 8 + (without,) * 2)
    (best,) = splits(law, rows, 1e12)[0].at
    assert best.size.high is None
    assert best.tokens.low is None
    assert best.size.low == pytest.approx(best.size.value)


def test_without_flops_a_dense_table_counts_six_for_each_parameter_and_token():
    law, rows = law_of("chinchilla")
    bare = {name: rows[name] for name in ("total_parameters", "tokens", "loss")}
    (split,) = splits(law, bare)
    assert split.flops_factor == pytest.approx(6)
    law, rows = law_of("abnar")
    bare = {name: values for name, values in rows.items() if name not in ("flops", "active_parameters")}
    assert "FLOPs are not known" in str(allocations(law, bare)[1])


@pytest.mark.parametrize("open_", ["alpha", "beta"])
def test_open_exponents_give_no_best_size(open_: str):
    law, rows = law_of("chinchilla")
    found, why = allocations(replace(law, undetermined=(open_,)), rows)
    assert found is None
    assert why == f"the runs leave {open_} open, and the best size depends on it"
    assert allocations(replace(law, undetermined=("E",)), rows)[0] is not None
