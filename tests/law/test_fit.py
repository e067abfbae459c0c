"""Fits give back what was generated, say what the data leave open, and refuse with a reason."""

from __future__ import annotations

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.law.check import held_out_check
from sparsedial.law.choose import PROVEN, choose, compare, select
from sparsedial.law.fit import fit, refusal
from sparsedial.law.forms import FORMS, STUDY_FORMS
from sparsedial.law.holding import checked
from sparsedial.law.law import read_law
from sparsedial.records.record import write

TRUTH = {
    "chinchilla": [1.7, 400.0, 400.0, 0.34, 0.28],
    "chinchilla_sparsity": [1.0, 60.0, 120.0, 0.4, 0.37, 0.25],
    "chinchilla_times_sparsity": [1.0, 60.0, 120.0, 0.4, 0.37, 0.1],
    "clark_saturating": [1.0, 60.0, 120.0, 0.4, 0.37, 0.3, 3.0],
    "sparsity_and_tokens": [1.0, 60.0, 120.0, 0.4, 0.37, 0.3, 0.1],
    "sparsity_by_tokens": [1.0, 60.0, 120.0, 0.4, 0.37, 0.15, 0.03],
    "sparsity_by_size_and_tokens": [1.0, 60.0, 120.0, 0.4, 0.37, 0.2, 0.05, 0.03],
    "abnar": [300.0, 120.0, 0.4, 40.0, 0.8, 0.5, 0.37, 0.3, -0.2, -0.3],
    "clark": [-0.08, -0.11, 0.009, 1.1, 1.9, 300.0],
    "krajewski": [18.0, 30.0, 2.1, 0.47, 0.15, 0.16, 0.58],
    "ludziejewski": [36.0, 36.0, 1.3, -0.19, -0.23, 0.01, -0.18, 0.55, -0.026, 2.1, 290.0],
    "zhao": [0.16, 7.2, 5.1, -3.2, 38.0, 2700.0, 31.0, 1.8, 0.24, 0.47, 0.0013, 0.045],
}


def table(form: str, noise: float = 0.01, seed: int = 0, budgets: int = 4, sparsities=(0.0, 0.75, 0.9375)):
    """Runs along lines of equal compute that bracket the best size, with noise on the loss."""
    truth = dict(zip(FORMS[form].coefficients, TRUTH[form], strict=True))
    rows = []
    for budget in 1e11 * 3.0 ** np.arange(budgets):
        for sparsity in sparsities:
            for size in (budget / 12) ** 0.5 * 2.0 ** np.arange(-2, 3):
                rows.append((size, size / (1 - 0.8 * sparsity), budget / (6 * size), sparsity, budget))
    names = ("active_parameters", "total_parameters", "tokens", "sparsity", "flops")
    columns = dict(zip(names, np.array(rows).T, strict=True))
    place = np.arange(len(rows))
    columns["experts"] = 1 / (1 - columns["sparsity"])
    columns["granularity"] = 2.0 ** (place % 4)
    columns["active_experts"] = 1.0 + place % 5
    columns["shared_share"] = (place % 3) / 6
    loss = FORMS[form].loss(np.array(list(truth.values())), columns)
    random = np.random.default_rng(seed)
    return {**columns, "loss": loss * np.exp(random.normal(0, noise, len(loss)))}, loss


@pytest.mark.parametrize("form", TRUTH)
def test_a_fit_gives_back_the_surface_within_the_noise(form):
    rows, exact = table(form)
    law = fit(rows, form, bootstrap=0)
    assert np.sqrt(np.mean(np.log(law.loss(**rows) / exact) ** 2)) < 0.01
    assert law.rmse_log_loss == pytest.approx(0.01, rel=0.4)


@pytest.mark.parametrize("form", ["chinchilla", "chinchilla_sparsity"])
def test_without_noise_the_coefficients_come_back(form):
    rows, _ = table(form, noise=0.0)
    law = fit(rows, form, bootstrap=0)
    for name, value in zip(FORMS[form].coefficients, TRUTH[form], strict=True):
        assert law.coefficients[name] == pytest.approx(value, rel=0.05), name


def test_intervals_of_the_loss_cover_the_truth():
    covered = []
    for seed in range(12):
        rows, exact = table("chinchilla_sparsity", seed=seed)
        law = fit(rows, "chinchilla_sparsity", bootstrap=60, seed=seed)
        low, high = law.interval(**rows)
        covered.append(np.mean((low <= exact) & (exact <= high)))
    assert 0.7 <= np.mean(covered) <= 0.99  # 90 % nominal; 12 tables and 60 samples are few


def test_one_bad_run_hardly_moves_a_robust_fit():
    rows, exact = table("chinchilla_sparsity", noise=0.003)
    rows["loss"][7] *= 1.5
    law = fit(rows, "chinchilla_sparsity", bootstrap=0)
    others = np.arange(len(exact)) != 7
    assert np.abs(np.log(law.loss(**rows) / exact))[others].max() < 0.01


def test_a_larger_budget_is_predicted_better_than_by_the_baselines():
    rows, _ = table("chinchilla_sparsity", noise=0.003)
    top = rows["flops"] == rows["flops"].max()
    low = select(rows, ~top)
    check = held_out_check(low, select(rows, top), fit(low, "chinchilla_sparsity", bootstrap=0))
    assert check["median_relative_error"] < 0.015
    assert check["law_on_the_same"] < min(check["baselines"].values())


def test_a_study_takes_the_form_asked_for_else_the_proven_one_from_three_budgets_on_else_the_best_compared():
    rows, _ = table("chinchilla_sparsity", noise=0.002, budgets=3)
    assert choose(rows, "abnar")[0] == "abnar"
    form, comparison = choose(rows)
    assert form == PROVEN
    assert "fixed in advance" in comparison["taken"]
    two = select(rows, rows["flops"] < rows["flops"].max())
    assert choose(two)[0] == compare(two, STUDY_FORMS)[0]


def test_the_simplest_form_that_predicts_is_chosen():
    rows, _ = table("chinchilla_sparsity", noise=0.003)
    form, comparison = compare(rows, STUDY_FORMS[:3])
    assert form == "chinchilla_sparsity"
    assert comparison["rule"] == "largest budget held out"


def test_what_two_sparsities_cannot_tell_is_listed():
    rows, _ = table("clark_saturating", sparsities=(0.0, 0.75))
    assert "log_most" in fit(rows, "clark_saturating", bootstrap=40).undetermined


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: select(rows, np.arange(4)), "4 runs are too few"),
        (lambda rows: select(rows, rows["flops"] == rows["flops"].min()), "1 budget is too few to separate"),
        (lambda rows: {**rows, "loss": 1 + rows["active_parameters"] / 1e9}, "no interior minimum"),
    ],
)
def test_a_table_that_supports_no_fit_is_refused_with_the_reason(change, says):
    with pytest.raises(UserError, match=says):
        fit(change(table("chinchilla_sparsity")[0]), "chinchilla_sparsity")


def test_a_pinned_coefficient_stays_where_it_was_put():
    rows, _ = table("chinchilla")
    law = fit(rows, "chinchilla", pin={"E": 1.6, "alpha": 0.34}, bootstrap=0)
    assert law.coefficients["E"] == 1.6
    assert law.coefficients["alpha"] == 0.34


def test_pinned_coefficients_are_not_counted_as_fitted():
    form = "chinchilla_sparsity"
    few = {name: values[::6] for name, values in table(form)[0].items() if name != "flops"}
    pin = dict(zip(FORMS[form].coefficients, TRUTH[form], strict=True))
    del pin["e"]
    law = fit(few, form, pin=pin, bootstrap=0)
    residuals = np.log(law.loss(**few) / few["loss"])
    assert law.rmse_log_loss == pytest.approx(np.sqrt(np.sum(residuals**2) / 9))
    assert fit(select(few, np.arange(10) < 4), form, pin=pin, bootstrap=0).runs == 4
    assert compare(few, [form], pin=pin)[0] == form
    assert compare(few, [form])[0] is None
    with pytest.raises(UserError, match="3 runs are too few for the 1 free coefficient of chinchilla_sparsity"):
        fit(select(few, np.arange(10) < 3), form, pin=pin)


def test_a_law_comes_back_from_its_file(tmp_path):
    rows, _ = table("chinchilla_sparsity")
    law = fit(rows, "chinchilla_sparsity", bootstrap=10)
    write(tmp_path / "law.json", law)
    again = read_law(tmp_path / "law.json")
    assert np.array_equal(law.loss(**rows), again.loss(**rows))
    assert law.interval(**rows)[0].tolist() == again.interval(**rows)[0].tolist()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_what_it_is(form):
    made = FORMS[form]
    assert made.name == form
    assert made.source
    assert len(made.exponents) == len(made.bounds) == len(made.starts)
    values = np.array(TRUTH[form])
    columns = {name: np.array([0.5 if name == "sparsity" else 1e6]) for name in made.variables}
    assert np.isfinite(made.loss(values, columns)).all()
    many = made.loss(np.stack([values, values]), columns)
    assert np.allclose(many, made.loss(values, columns))


def test_runs_of_one_group_count_as_one_in_the_intervals():
    """Every run four times over tells no more than once: by itself it would halve the intervals."""
    rows, _ = table("chinchilla_sparsity")
    widths = []
    for copies, grouped in ((1, False), (4, True), (4, False)):
        many = {name: np.tile(values, copies) for name, values in rows.items()}
        if grouped:
            many["group"] = np.tile(np.arange(len(rows["loss"])), copies).astype(float)
        low, high = fit(many, "chinchilla_sparsity", bootstrap=200).interval(**rows)
        widths.append(float(np.median(high - low)))
    once, together, apart = widths
    assert together == pytest.approx(once, rel=0.2)
    assert apart < 0.65 * once


def branches(copies: int = 6, spread: float = 0.02) -> dict[str, np.ndarray]:
    """Six sizes, each one trunk with as many branches, whose runs all have the error of their trunk."""
    random = np.random.default_rng(0)
    trunk = np.repeat(np.arange(6), copies)
    size, tokens = 1e6 * 2.0**trunk, 2e7 * 2.0 ** np.tile(np.arange(copies), 6)
    common, own = random.normal(0, spread, 6)[trunk], random.normal(0, 1e-3, len(trunk))
    loss = (1.8 + 400 / size**0.34 + 1500 / tokens**0.36) * np.exp(common + own)
    return {"total_parameters": size, "tokens": tokens, "loss": loss, "group": trunk.astype(float)}


def test_branches_of_one_trunk_are_held_out_together():
    """One branch tells the error of the others, so a form would seem to predict better than it does."""
    rows = branches()
    apart = {name: values for name, values in rows.items() if name != "group"}
    errors = [compare(table, ["chinchilla"])[1]["forms"]["chinchilla"]["rms_log_error"] for table in (rows, apart)]
    assert errors[0] > 1.3 * errors[1]


def test_branches_of_a_single_trunk_give_a_law_but_no_interval():
    rows, _ = table("chinchilla")
    rows = {**rows, "group": np.zeros(len(rows["loss"]))}
    assert "share one trunk" in str(refusal(rows, "chinchilla", intervals=True))
    with pytest.raises(UserError, match="share one trunk"):
        fit(rows, "chinchilla", bootstrap=10)
    assert fit(rows, "chinchilla", bootstrap=0).runs == len(rows["loss"])


def test_a_weight_is_how_often_a_run_counts():
    rows, _ = table("chinchilla")
    often = np.where(np.arange(len(rows["loss"])) % 5 == 0, 3, 1)
    weighted = fit({**rows, "weight": often.astype(float)}, "chinchilla", bootstrap=50)
    repeated = {name: np.repeat(values, often) for name, values in rows.items()}
    repeated["group"] = np.repeat(np.arange(len(often)), often).astype(float)
    copied = fit(repeated, "chinchilla", bootstrap=50)
    for name, value in weighted.coefficients.items():
        assert value == pytest.approx(copied.coefficients[name], rel=2e-3), name
    assert weighted.coefficients["beta"] != pytest.approx(fit(rows, "chinchilla", bootstrap=0).coefficients["beta"])


def test_a_run_of_weight_0_counts_as_if_it_were_not_there():
    rows, _ = table("chinchilla")
    weight = np.ones(len(rows["loss"]))
    weight[3] = 0.0
    without = fit(select(rows, weight > 0), "chinchilla", bootstrap=20)
    bad = {**rows, "loss": np.where(weight > 0, rows["loss"], 100.0), "weight": weight}
    assert fit(bad, "chinchilla", bootstrap=20) == without


def test_even_weights_change_nothing():
    rows, _ = table("chinchilla")
    assert fit({**rows, "weight": np.full(len(rows["loss"]), 7.0)}, "chinchilla", bootstrap=20) == fit(
        rows, "chinchilla", bootstrap=20
    )


def test_the_comparison_and_the_check_use_the_estimator_of_the_fit():
    rows, _ = table("chinchilla", noise=0.02)
    errors = [compare(rows, ["chinchilla"], huber=huber)[1]["forms"]["chinchilla"] for huber in (None, 1e-3)]
    assert errors[0] != errors[1]
    held = rows["flops"] == rows["flops"].max()
    checks = [checked(rows, held, "chinchilla", rule=None, seed=0, huber=huber)[0] for huber in (None, 1e-3)]
    assert checks[0] != checks[1]
    law = fit(select(rows, ~held), "chinchilla", bootstrap=0, huber=1e-3)
    assert checks[1] == held_out_check(select(rows, ~held), select(rows, held), law)
