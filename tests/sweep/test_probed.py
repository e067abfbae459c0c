"""What cells say at equal loss: a planted effect comes back with an interval that holds it, and none is no effect."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from sparsedial.records.probes import ProbeScores
from sparsedial.sweep.probed import at_equal_loss, probed, sparsity_effect
from tests.showing.synthetic import known_probes
from tests.sweep.simulation import asked, steady

EXPERTS = (0, 8, 16, 32)
SEEDS = 150


def cells(seed: int, effect: float, budgets: int = 3):
    """Bits per byte, loss, sparsity and shape of a grid's cells; cells of one shape share a part of their noise."""
    draw = np.random.default_rng(seed)
    rows = []
    for rank, experts in enumerate(EXPERTS):
        own = {width: draw.normal(0, 0.02) for width in range(budgets + 3)}
        for budget in range(budgets):
            for width in range(3):
                loss = 2.5 - 0.2 * budget - 0.03 * rank + 0.02 * (width - 1) ** 2 + draw.normal(0, 0.01)
                sparsity = 1 - 2 / experts if experts else 0.0
                shape = (width + budget // 2, experts)
                bits = 0.5 * loss + effect * sparsity / 0.1 + own[shape[0]] + draw.normal(0, 0.01)
                rows.append((bits, loss, sparsity, shape))
    bits, loss, sparsity, shapes = zip(*rows, strict=True)
    return np.array(bits), np.array(loss), np.array(sparsity), list(shapes)


def test_the_interval_holds_the_planted_effect_as_often_as_it_says():
    held = []
    for seed in range(SEEDS):
        found = sparsity_effect(*cells(seed, 0.01))
        assert found is not None
        held.append(found.low <= 0.01 <= found.high)
    assert 0.9 <= np.mean(held) <= 0.99


def test_an_effect_is_found_and_none_is_not():
    found = [sparsity_effect(*cells(seed, effect)) for effect in (0.03, 0.0) for seed in range(40)]
    resolved = [not one.low <= 0 <= one.high for one in found]
    assert np.mean(resolved[:40]) > 0.95
    assert np.mean(resolved[40:]) < 0.15
    assert np.mean([one.mean for one in found[:40]]) == pytest.approx(0.03, abs=0.002)


@pytest.mark.parametrize("change", ["one shape", "one sparsity", "loss is sparsity"])
def test_cells_that_cannot_say_say_nothing(change: str):
    bits, loss, sparsity, shapes = cells(0, 0.01)
    if change == "one shape":
        shapes = [(1, 0)] * len(shapes)
    elif change == "one sparsity":
        sparsity = np.zeros_like(sparsity)
    else:
        loss = 2 + sparsity
    assert sparsity_effect(bits, loss, sparsity, shapes) is None


def runs_with(effect: float):
    """The runs of a simulated grid, whose answers depend on sparsity so much, with noise."""
    draw, runs = np.random.default_rng(0), [result.run for result in steady().cells.values()]

    def scores(run) -> ProbeScores:
        bits = 0.5 * run.validation_loss + effect * run.sparsity.experts / 0.1 + draw.normal(0, 0.002)
        return known_probes({"facts": bits, "reading": bits})

    return [replace(run, probes=scores(run)) for run in runs]


@pytest.mark.parametrize(
    ("effect", "kind", "says"),
    [
        (0.05, "reading", "sparser models read worse: +0.0"),
        (-0.05, "facts", "sparser models know the facts better: −0.0"),
        (0.0, "reading", "whether sparser models read better is not resolved at this size: the interval holds 0"),
    ],
)
def test_the_sentence_says_what_was_found(effect, kind, says):
    runs = runs_with(effect)
    found = at_equal_loss(kind, runs)
    assert says in found.sentence
    assert found.resolved == bool(effect)
    assert found.cells == len(runs)
    shapes = len({(run.shape.d_model, run.shape.experts) for run in runs})
    assert f"from {len(runs)} cells of {shapes} shapes" in found.sentence


def test_few_shapes_are_not_compared():
    found = at_equal_loss("facts", runs_with(0.05)[:4])
    assert (found.effect_of_sparsity, found.resolved, found.cells) == (None, False, 4)
    assert "4 cells of 4 shapes allow no regression" in found.sentence


def test_a_study_without_probes_has_none():
    assert probed(steady().cells, asked().inputs) is None
    empty = probed(steady().cells, asked(probes=0.08).inputs)
    assert empty is not None
    assert (empty.cells, empty.reading_at_equal_loss.resolved) == ((), False)
