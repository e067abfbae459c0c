"""A law is asked about what its runs, its form and its open coefficients let it answer."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.law.counting import counted_as, size_of
from sparsedial.law.fence import fence
from sparsedial.law.forms import FORMS
from sparsedial.law.law import Law
from sparsedial.law.literature import PUBLISHED
from sparsedial.law.ranges import ranges
from sparsedial.shape.counts import active_parameters
from sparsedial.shape.ladder import Ladder

RANGE = {"total_parameters": (1e8, 1e10), "tokens": (1e9, 1e11), "tokens_per_parameter": (2.0, 200.0)}


def law_of(form: str = "chinchilla", fitted=RANGE, **changes) -> Law:
    names = FORMS[form].coefficients
    return Law(
        form=form, coefficients=dict.fromkeys(names, 0.5), intervals=dict.fromkeys(names, (0.4, 0.6)), confidence=0.9,
        samples=(), runs=40, rmse_log_loss=0.01, fitted_range=dict(fitted), undetermined=(), seed=0, **changes,
    )  # fmt: skip


def test_a_form_without_sparsity_is_about_dense_models_unless_its_runs_were_of_one_sparsity():
    assert fence(law_of()).ratio == 1
    assert fence(law_of(fitted={**RANGE, "sparsity": (0.75, 0.75)})).ratio == pytest.approx(4)
    mixed = fence(law_of(fitted={**RANGE, "sparsity": (0.0, 0.75)}))
    assert mixed.ratio == 1
    assert "cannot tell" not in mixed.says[0]
    assert "densest" in mixed.says[0]


def test_runs_of_one_sparsity_hold_a_form_that_knows_sparsity():
    held = fence(law_of("chinchilla_sparsity", {"tokens": (1e9, 1e11), "sparsity": (0.9, 0.9)}))
    assert held.ratio == pytest.approx(10)
    assert held.says == ("all runs of this law had sparsity 0.9, so it plans models of sparsity 0.9 alone",)
    free = fence(law_of("chinchilla_sparsity", {"tokens": (1e9, 1e11), "sparsity": (0.0, 0.9)}))
    assert (free.ratio, free.says) == (None, ())


def test_the_fences_of_published_laws_hold_for_their_refits():
    assert fence(PUBLISHED["clark/hash"].law).tokens == 130e9
    assert fence(law_of("clark", {"tokens": (2e10, 2e10), "experts": (1, 64)})).tokens == 2e10
    assert fence(law_of("krajewski")).ratio == fence(PUBLISHED["krajewski"].law).ratio == 64
    assert fence(PUBLISHED["chinchilla/besiroglu"].law).ratio == 1
    for law in (PUBLISHED["ludziejewski"].law, law_of("ludziejewski", {**RANGE, "experts": (1, 32)})):
        assert [hold.span for hold in fence(law).holds if hold.axis == "experts"] == [(1, 32)]


@pytest.mark.parametrize(("tokens", "says"), [({}, "does not tell"), ({"tokens": (1e9, 1e10)}, "cannot tell apart")])
def test_a_law_without_tokens_is_refused_unless_its_runs_had_one_number(tokens, says):
    with pytest.raises(UserError, match=says):
        fence(law_of("clark", {"experts": (1, 64), **tokens}))


@pytest.mark.parametrize(
    ("open_ones", "axes"),
    [
        ((), set()),
        (("alpha",), {"total_parameters"}),
        (("beta",), {"tokens"}),
        (("alpha", "beta"), {"total_parameters", "tokens", "tokens_per_parameter"}),
        (("A",), set()),  # of uncertain height alone
    ],
)
def test_an_open_coefficient_holds_the_axis_that_it_governs(open_ones, axes):
    found = fence(replace(law_of(), undetermined=open_ones))
    assert {hold.axis for hold in found.holds} == axes
    assert bool(axes) == any("leave" in line for line in found.says)


def test_a_scale_that_may_be_nothing_holds_its_axis():
    law = replace(law_of(), undetermined=("B",), intervals={"B": (0.0, 5.0)})
    assert [hold.axis for hold in fence(law).holds] == ["tokens"]


def test_one_ratio_of_tokens_to_parameters_is_held():
    found = fence(law_of(fitted={**RANGE, "tokens_per_parameter": (20.0, 20.1)}))
    assert [hold.axis for hold in found.holds] == ["tokens_per_parameter"]


def test_every_form_says_what_governs_its_axes():
    for form in FORMS.values():
        named = {name for names in form.governs.values() for name in names}
        assert named <= set(form.coefficients), form.name
        assert set(form.exponents) <= named, form.name


def test_the_range_holds_every_variable_that_a_model_can_be_asked_for():
    rows = {
        "loss": np.ones(3), "active_parameters": np.array([1e8, 2e8, 4e8]), "total_parameters": np.full(3, 1e9),
        "tokens": np.array([1e9, 2e9, 2e9]), "flops": np.array([1e18, 2e18, 3e18]),
        "sparsity": np.array([0.0, 0.5, 0.75]), "d_model": np.array([64.0, 128, 256]),
    }  # fmt: skip
    found = ranges(rows, FORMS["chinchilla_sparsity"])
    assert found["experts"] == (1, 4)
    assert found["tokens_per_parameter"] == (5, 10)
    assert found["d_model"] == (64, 256)
    assert set(found) >= {"total_parameters", "active_parameters", "tokens", "flops", "sparsity"}
    dense = {name: rows[name] for name in ("loss", "tokens")} | dict.fromkeys(
        ("total_parameters", "active_parameters"), rows["active_parameters"]
    )
    assert ranges(dense, FORMS["chinchilla"])["sparsity"] == (0, 0)


def test_sizes_are_counted_as_the_law_counts_them():
    shape = Ladder(vocab_size=256, context=64).shape(64, 8)
    tables = 256 * 64 * (1 if shape.tied_embeddings else 2)
    assert size_of(shape, "active_parameters", "without-embeddings") == active_parameters(shape) - tables
    bare = replace(law_of(), counting="without-embeddings").variables(shape, 1e9)["total_parameters"]
    assert law_of().variables(shape, 1e9)["total_parameters"] - bare == tables


@pytest.mark.parametrize(
    ("column", "counting"),
    [
        ("non_embedding_params", "without-embeddings"),
        ("N (no embeddings)", "without-embeddings"),
        ("params_without_embedding", "without-embeddings"),
        ("non-emb", "without-embeddings"),
        ("params", None),
        ("embedding_params", None),
    ],
)
def test_the_name_of_a_column_tells_the_convention(column, counting):
    assert counted_as(None, {"total_parameters": column}) == counting
    assert counted_as("both-embeddings", {"total_parameters": column}) == "both-embeddings"
