"""Cells: the mean of their seeds, and what counts where some diverged."""

from __future__ import annotations

import math

import numpy as np
import pytest
from msgspec.structs import replace

from sparsedial.records.grid import Cell
from sparsedial.sweep.cells import counted, line_losses, merged
from tests.sweep.simulation import steady

CELL = Cell(d_model=24, experts=0, budget_flops=1e11)


def run_with(seed: int, loss: float | None):
    made = next(iter(steady().cells.values())).run
    recipe = replace_recipe(made.recipe, seed)
    if loss is None:
        return replace(made, recipe=recipe, status="diverged", validation_loss=None, validation_bits_per_byte=None)
    return replace(made, recipe=recipe, validation_loss=loss, validation_bits_per_byte=loss / math.log(2))


def replace_recipe(recipe, seed):
    from dataclasses import replace as changed

    return changed(recipe, seed=seed)


def test_a_cell_is_the_mean_of_its_seeds():
    cell = merged([run_with(seed, loss) for seed, loss in ((1, 2.0), (0, 1.0), (2, 2.4))])
    assert cell.loss == pytest.approx(1.8)
    assert cell.bits_per_byte == pytest.approx(1.8 / math.log(2))
    assert cell.seed_losses == (1.0, 2.0, 2.4)
    assert cell.run.recipe.seed == 0


def test_a_cell_of_which_most_seeds_diverged_has_diverged():
    assert merged([run_with(0, 1.0), run_with(1, None), run_with(2, 1.2)]).loss == pytest.approx(1.1)
    gone = merged([run_with(0, 1.0), run_with(1, None)])
    assert gone.loss is None
    assert not gone.run.finished
    assert line_losses({CELL: gone}, 0, 1e11) == {24: np.inf}
    assert counted(3, {CELL: gone}).diverged == 1
