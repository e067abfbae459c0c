"""The published laws: known numbers, their own variables, and how each counts a model."""

from __future__ import annotations

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.law import published
from sparsedial.law.forms import FORMS
from sparsedial.law.literature import LING, PUBLISHED, repeated_tokens
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.published import find_shape

# Worked by hand from the formulas in the papers, not with this code.
KNOWN = [
    ("chinchilla/besiroglu", {"total_parameters": 70e9, "tokens": 1.4e12}, 1.8172 + 0.081495 + 0.075187),
    ("chinchilla/hoffmann", {"total_parameters": 70e9, "tokens": 1.4e12}, 1.6934 + 0.085172 + 0.142263),
    ("clark/s-base", {"active_parameters": 1e8, "experts": 1}, 10 ** (-0.656 - 0.036 * 0.26646 + 1.104)),
    (
        "krajewski",
        {"total_parameters": 1e9, "tokens": 1e11, "granularity": 1},
        0.47 + 20.2 * 1e9**-0.115 + 30.8 * 1e11**-0.147,
    ),
]


@pytest.mark.parametrize(("name", "variables", "loss"), KNOWN)
def test_a_published_law_gives_the_loss_of_its_formula(name, variables, loss):
    assert published(name).loss(**variables) == pytest.approx(loss, rel=1e-4)


def test_the_loss_of_numbers_is_a_number_and_that_of_columns_a_column():
    law = published("chinchilla/besiroglu")
    one = law.loss(total_parameters=70e9, tokens=1.4e12)
    assert type(one) is float
    many = law.loss(total_parameters=np.array([70e9, 7e9]), tokens=1.4e12)
    assert many.shape == (2,)
    assert many[0] == one


def test_abnar_falls_with_sparsity_at_fixed_compute_up_to_the_sparsest():
    law = published("abnar")
    losses = []
    for sparsity in (0.0, 0.5, 0.9, 0.98):
        active = np.geomspace(1e8, 1e10, 400)
        total = active / (1 - sparsity)
        losses.append(law.loss(total_parameters=total, tokens=1e20 / (6 * active), sparsity=sparsity).min())
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_law_says_what_it_is_and_fits_its_form(name):
    law = PUBLISHED[name]
    assert law.name == name
    assert set(law.coefficients) == set(FORMS[law.form].coefficients)
    assert law.source
    assert law.held_fixed
    assert law.misleads.endswith(".")


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("model", ["deepseek-v3", "mixtral-8x7b", "sparsedial tiny dense"])
def test_every_published_law_reads_its_variables_off_a_shape(name, model):
    shape = Ladder(vocab_size=256, context=64).shape(64, 0) if "tiny" in model else find_shape(model)[1]
    law = published(name)
    variables = law.variables(shape, 1e11)
    assert set(variables) == set(FORMS[law.form].variables)
    assert np.isfinite(law.loss(**variables)).all()


def test_laws_count_parameters_in_their_own_ways():
    _, shape = find_shape("mixtral-8x7b")
    tables = 2 * shape.vocab_size * shape.d_model
    assert published("abnar").variables(shape, 1.0)["total_parameters"] == total_parameters(shape)
    assert published("krajewski").variables(shape, 1.0)["total_parameters"] == total_parameters(shape) - tables
    assert published("ludziejewski").variables(shape, 1.0)["active_parameters"] == active_parameters(shape)
    assert published("clark/hash").variables(shape, 1.0)["experts"] == 4  # 8 experts, 2 a token


def test_leverage_is_one_where_nothing_is_switched_off_and_grows_with_sparsity():
    ratios = np.array([1.0, 0.5, 0.1, 0.03])
    gains = LING.leverage(activation_ratio=ratios, granularity=8, flops=1e20)
    assert gains[0] == pytest.approx(1.0, abs=0.05)
    assert (np.diff(gains) > 0).all()
    assert published("ling") is LING


def test_repeats_are_worth_less_than_fresh_text():
    assert repeated_tokens(1e9, 5e8) == 5e8
    assert repeated_tokens(1e9, 4e9) == pytest.approx(1e9 + 15.39e9 * (1 - np.exp(-3 / 15.39)))
    assert repeated_tokens(1e9, 1e15) == pytest.approx(16.39e9)


def test_an_unknown_law_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="abnr") as error:
        published("abnr")
    assert "abnar" in str(error.value.hint)
