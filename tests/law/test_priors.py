"""What is expected of an exponent counts beside the runs, as much as they leave open."""

from __future__ import annotations

import numpy as np
import pytest

from sparsedial.law.choose import PROVEN, STUDY_PRIORS, select
from sparsedial.law.fit import fit
from sparsedial.records.law import Prior
from tests.law.test_fit import table

FORM = "chinchilla_sparsity"
TRUE_BETA = 0.37


def beta_of(rows, prior: Prior | None, form: str = FORM) -> float:
    return fit(rows, form, bootstrap=0, priors={"beta": prior} if prior else {}).coefficients["beta"]


def test_runs_without_scatter_need_no_prior():
    rows, _ = table(FORM, noise=0.0)
    assert beta_of(rows, Prior(value=0.8, log_spread=0.1)) == pytest.approx(TRUE_BETA, rel=1e-3)


def test_a_sure_prior_decides_and_an_unsure_one_says_nothing():
    rows, _ = table(FORM, noise=0.02, seed=1)
    alone = beta_of(rows, None)
    assert beta_of(rows, Prior(value=0.8, log_spread=1e-4)) == pytest.approx(0.8, rel=1e-3)
    assert beta_of(rows, Prior(value=0.8, log_spread=1e3)) == pytest.approx(alone, rel=1e-3)
    between = beta_of(rows, Prior(value=0.8, log_spread=0.3))
    assert alone < between < 0.8


def test_a_prior_a_standard_deviation_away_costs_as_much_as_a_run():
    """By least squares: a law moves towards a prior as long as the runs lose less by it than the prior gains."""
    rows, _ = table(FORM, noise=0.02, seed=1)
    prior = Prior(value=0.8, log_spread=0.3)
    alone, drawn = (fit(rows, FORM, bootstrap=0, huber=1.0, priors=each) for each in ({}, {"beta": prior}))
    costs = [
        (
            np.sum((np.log(law.loss(**rows) / rows["loss"]) / alone.rmse_log_loss) ** 2),
            (np.log(law.coefficients["beta"] / prior.value) / prior.log_spread) ** 2,
        )
        for law in (alone, drawn)
    ]
    runs_lose, prior_gains = costs[1][0] - costs[0][0], costs[0][1] - costs[1][1]
    assert 0 < 2 * runs_lose < 1.3 * prior_gains  # near a minimum a move gains twice what it loses
    assert runs_lose > 0.2 * prior_gains


def test_samples_are_as_unsure_as_the_prior():
    rows, _ = table(FORM, noise=0.03, budgets=2)
    prior = Prior(value=TRUE_BETA, log_spread=0.05)  # far surer than these runs
    law = fit(rows, FORM, bootstrap=400, priors={"beta": prior})
    betas = np.log([sample[list(law.coefficients).index("beta")] for sample in law.samples])
    assert betas.std() == pytest.approx(0.05, rel=0.2)


def test_a_law_says_which_priors_it_counted():
    rows, _ = table(FORM)
    priors = {"beta": Prior(value=0.4, log_spread=0.2), "gamma": Prior(value=1.0, log_spread=0.1)}
    assert fit(rows, FORM, bootstrap=0, priors=priors).priors == {"beta": priors["beta"]}
    assert fit(rows, FORM, bootstrap=0, priors=priors, pin={"beta": 0.3}).priors == {}


def test_a_study_expects_less_of_tokens_than_runs_of_few_tokens_show():
    """Runs below a few million tokens are worse than the law of longer ones says; beyond them the prior helps."""
    rows, _ = table(PROVEN, noise=0.004, budgets=4)
    rows["loss"] = rows["loss"] + 30 * (rows["tokens"] / rows["tokens"].min()) ** -2.0 * 0.02
    top = rows["flops"] == rows["flops"].max()
    below, held = select(rows, ~top), select(rows, top)
    bias = {}
    for name, priors in (("without", {}), ("with", STUDY_PRIORS)):
        law = fit(below, PROVEN, bootstrap=0, priors=priors)
        bias[name] = float(np.mean(np.log(law.loss(**held) / held["loss"])))
    assert abs(bias["with"]) < abs(bias["without"])
