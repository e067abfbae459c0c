"""What a whole study is expected to take."""

from __future__ import annotations

from msgspec.structs import replace

from sparsedial.sweep.budgets import EXTENSION_SHARE, SELECTION_SEEDS
from sparsedial.sweep.expect import expected_seconds
from sparsedial.sweep.layout import Layout, cell_seconds
from tests.sweep.test_layout import PROFILE, fitted


def expect(layout: Layout, seeds: int = 3, **changes: int) -> tuple[float, float]:
    tokens = {"evaluation_tokens": 1 << 16, "verdict_tokens": 1 << 19, **changes}
    return expected_seconds(layout, PROFILE, 2, seeds, **tokens)


def test_a_study_takes_longer_than_its_layout_plans_for_and_longest_with_open_sides():
    layout = fitted(1500)
    likely, most = expect(layout)
    assert layout.predicted_seconds.total < likely < most


def test_scoring_and_further_seeds_take_their_time():
    layout = fitted(1500)
    assert expect(layout, verdict_tokens=1 << 20) > expect(layout)
    run = min(cell_seconds(layout, PROFILE, cell) for cell in layout.top_cells)
    assert expect(layout, seeds=5)[0] > expect(layout)[0] + 2 * 2 * run  # two runs of each seed alone


def test_the_scan_of_a_second_budget_counts():
    three = fitted(1500, ratios=((1.0, 2.0, 4.0),))
    beside = expect(three)[1] - expect(three)[0]
    costlier = replace(three, budgets=(three.budgets[0], 2 * three.budgets[1], three.budgets[2]))
    assert expect(costlier)[1] - expect(costlier)[0] > beside


def test_the_longest_includes_the_runs_that_choose_between_the_law_and_the_best_measured():
    layout = fitted(1500)
    likely, most = expect(layout)
    dense = max(cell_seconds(layout, PROFILE, cell) for cell in layout.top_cells if not cell.experts)
    assert most - likely > EXTENSION_SHARE * layout.predicted_seconds.grid + 2 * 4 * SELECTION_SEEDS * dense / 2
