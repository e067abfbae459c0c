"""The grid: what is laid brackets, holds its steps and its time, and is written down and read again."""

from __future__ import annotations

import math
from bisect import bisect_left

import pytest
from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.law.bracket import open_side
from sparsedial.records.grid import Cell, LayoutFile
from sparsedial.records.record import read, write
from sparsedial.shape.counts import training_flops_per_token
from sparsedial.shape.ladder import RUNGS, Ladder
from sparsedial.sweep.at_once import AtOnce
from sparsedial.sweep.budgets import fit_to_time, predict_phases, smallest
from sparsedial.sweep.design import design
from sparsedial.sweep.layout import LEAST_STEPS, Layout, lay, least_budget, next_cell, too_small
from sparsedial.units import bare_exponent
from tests.machine.test_profile import profile_of
from tests.sweep.simulation import asked

PROFILE = profile_of(0.0)
DRAFT = Layout(
    ladder=Ladder(vocab_size=256, context=64),
    batch=8,
    budgets=(1e11, 3e11),
    experts=(0, 8, 16, 32),
    seeds=3,
    max_total_parameters=None,
    cell_seeds=1,
)


def test_every_line_has_three_neighbouring_sizes_with_enough_steps():
    cells = lay(DRAFT)
    assert len(cells) == 2 * 4 * 3
    for budget in DRAFT.budgets:
        for experts in DRAFT.experts:
            rungs = [cell.d_model for cell in cells if (cell.budget_flops, cell.experts) == (budget, experts)]
            at = RUNGS.index(rungs[0])
            assert tuple(rungs) == RUNGS[at : at + 3]
    assert min(DRAFT.steps(cell) for cell in cells) >= LEAST_STEPS


def test_cells_of_one_budget_cost_the_same_flops():
    for cell in lay(DRAFT):
        flops = training_flops_per_token(DRAFT.shape(cell), 64) * DRAFT.tokens(cell)
        assert 0.99 * cell.budget_flops < flops <= cell.budget_flops


def test_cheap_cells_are_trained_with_more_seeds():
    layout = replace(DRAFT, budgets=(1e11, 3e11, 9e11, 2.7e12))
    assert [layout.repeats(budget) for budget in layout.budgets] == [3, 2, 1, 1]
    assert [DRAFT.repeats(budget) for budget in DRAFT.budgets] == [1, 1]


@pytest.mark.parametrize(
    ("losses", "side"),
    [({16: 2.0, 24: 1.9, 32: 1.95}, None), ({16: 1.8, 24: 1.9, 32: 1.95}, "smaller"), ({16: 2.0, 24: 1.9}, "larger"),
     ({16: math.inf, 24: 1.9, 32: 2.0}, None)],
)  # fmt: skip
def test_an_open_side_is_the_side_of_the_best_size(losses, side):
    assert open_side(losses) == side


def test_an_open_side_is_followed_rung_by_rung_up_to_a_bound():
    losses = {16: 1.8, 24: 1.9, 32: 2.0}
    assert next_cell(DRAFT, 8, 3e11, losses) == Cell(d_model=12, experts=8, budget_flops=3e11)
    assert next_cell(DRAFT, 8, 3e11, {12: 1.7, **losses}) is None  # no smaller rung
    assert next_cell(DRAFT, 8, 3e11, {16: 2.0, 24: 1.9, 32: 1.8}) == Cell(d_model=48, experts=8, budget_flops=3e11)
    assert next_cell(DRAFT, 8, 3e11, {16: 1.9, 24: 1.8, 32: 1.9}) is None
    assert next_cell(replace(DRAFT, max_total_parameters=1.0), 8, 3e11, losses) is None


def test_too_small_a_budget_for_three_sizes_is_refused():
    short = replace(DRAFT, budgets=(1e9, 3e9))
    assert lay(short) is None
    assert "allow no size with 300 steps" in too_small(short).problem


@pytest.mark.parametrize("budgets", [(1e9, 3e9), (1e9, 2e9, 3e9, 4e9)])
def test_a_refused_budget_is_told_the_least_that_would_do(budgets: tuple[float, ...]):
    least = least_budget(replace(DRAFT, budgets=budgets))
    assert least is not None
    enough = tuple(least * factor for factor in range(1, len(budgets) + 1))
    assert lay(replace(DRAFT, budgets=enough)) is not None
    assert lay(replace(DRAFT, budgets=(0.95 * least, *enough[1:]))) is None
    refused = too_small(replace(DRAFT, budgets=budgets))
    assert refused.field == "budgets"
    assert f"at least {bare_exponent(f'{least:.2g}')}" in (refused.hint or "")


def test_no_budget_is_told_where_the_bound_on_parameters_leaves_fewer_than_three_sizes():
    bounded = replace(DRAFT, budgets=(1e9, 3e9), max_total_parameters=1.0)
    assert least_budget(bounded) is None
    assert too_small(bounded).field == "max_total_parameters"


def fitted(seconds: float, ratios=((1.0, 3.0),)) -> Layout:
    drafts = [replace(DRAFT, batch=16, budgets=tuple(1e9 * ratio for ratio in row)) for row in ratios]
    return fit_to_time(drafts, PROFILE, seconds, AtOnce(numbers=(2,)), whole_seconds=lambda least: least + 30)


def test_more_time_buys_larger_budgets_and_no_prediction_exceeds_it():
    short, long = fitted(1500), fitted(6000)
    assert long.budgets[-1] > short.budgets[-1]
    assert short.predicted_seconds.total <= 1500
    assert long.predicted_seconds.total <= 6000


def test_the_least_time_that_an_error_names_is_enough():
    with pytest.raises(UserError, match="too short") as error:
        fitted(5.0)
    minutes = float(error.value.hint.split("the minimum here is ")[1].split("m")[0])
    fitted(60 * minutes - 30)


@pytest.mark.parametrize("set_up_seconds", [3.0, 40.0])
def test_the_least_time_of_a_study_is_enough_whatever_time_was_asked(set_up_seconds):
    def laid(minutes: float) -> Layout:
        slow = replace(PROFILE, coefficients={name: 6 * value for name, value in PROFILE.coefficients.items()})
        return design(asked(time=60 * minutes), 256, lambda *_: slow, lambda: set_up_seconds)[0]

    for minutes in (3.0, 4.0):
        with pytest.raises(UserError, match="too short for a grid on this machine") as error:
            laid(minutes)
        laid(float(error.value.hint.split("the minimum here is ")[1].split("m")[0]))


def test_no_layout_at_all_is_said_as_such():
    with pytest.raises(UserError, match="allows three sizes with 32 experts"):
        fit_to_time([replace(DRAFT, max_total_parameters=20e3)], PROFILE, 1500, AtOnce(numbers=(2,)), float)
    with pytest.raises(UserError, match="context of 100000000"):
        smallest([replace(DRAFT, ladder=Ladder(vocab_size=256, context=10**8))])


def test_the_smallest_layout_is_the_one_below_which_nothing_can_be_laid():
    drafts = [replace(DRAFT, batch=16, budgets=ratios) for ratios in ((1e9, 3e9), (1e9, 2e9))]
    least = smallest(drafts)
    assert least.cells == lay(least)
    assert least.flops < fitted(1500, ((1.0, 3.0), (1.0, 2.0))).flops
    assert lay(replace(least, budgets=tuple(0.7 * budget for budget in least.budgets))) is None


def test_many_seeds_of_a_cell_take_their_time_at_every_budget():
    one, many = (predict_phases(replace(fitted(1500), cell_seeds=seeds), PROFILE, 2).grid for seeds in (1, 1_000_000))
    assert many > 5e5 * one


def test_fewer_budgets_are_laid_before_a_short_time_is_refused():
    wide = ((1.0, 3.0, 9.0, 27.0), (1.0, 2.0))
    times = range(100, 3000, 20)
    least = times[bisect_left(times, True, key=lambda seconds: _fits(seconds, wide))]
    assert len(fitted(least, wide).budgets) == 2


def _fits(seconds: float, ratios) -> bool:
    try:
        fitted(seconds, ratios)
    except UserError:
        return False
    return True


def test_a_layout_comes_back_from_its_file(tmp_path):
    layout = fitted(1500)
    write(tmp_path / "layout.json", layout)
    assert Layout.of(read(tmp_path / "layout.json", LayoutFile)) == layout
