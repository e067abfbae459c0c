"""What the probes of a study's cells say: whether sparse models read worse, or know more, at equal validation loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsedial.records.probes import EFFECT_UNIT, EqualLossEffect, ProbedCell, ProbeKind, StudyProbes
from sparsedial.records.quantities import Interval
from sparsedial.records.run import Run
from sparsedial.records.study import Inputs
from sparsedial.sweep.cells import Cells
from sparsedial.sweep.verdict import CONFIDENCE, t_quantile
from sparsedial.units import signed

STEP = 0.1  # of expert sparsity, which an effect is stated for
TERMS = 3  # of the regression: a constant, the loss and the sparsity
LEAST_SHAPES = 6  # an interval from fewer would be a guess
RESAMPLES = 1000
VERBS: dict[ProbeKind, tuple[str, str]] = {  # for fewer bits per byte, and for more
    "reading": ("read better", "read worse"),
    "facts": ("know the facts better", "know the facts worse"),
}


def probed(cells: Cells, inputs: Inputs) -> StudyProbes | None:
    """The probe scores of all cells, and the two answers; None for a study without probes."""
    if inputs.probes is None:
        return None
    runs = [result.run for result in cells.values() if result.run.probes]
    return StudyProbes(
        share=inputs.probes,
        seed=inputs.seed,
        cells=tuple(map(_cell, runs)),
        reading_at_equal_loss=at_equal_loss("reading", runs),
        facts_at_equal_loss=at_equal_loss("facts", runs),
    )


def _cell(run: Run) -> ProbedCell:
    assert run.validation_loss is not None
    assert run.probes is not None
    return ProbedCell(run=run.hash, sparsity=run.sparsity.experts, loss=run.validation_loss, probes=run.probes)


def at_equal_loss(kind: ProbeKind, runs: Sequence[Run]) -> EqualLossEffect:
    """How bits per byte of the answers to one kind of probe change with sparsity at equal validation loss."""
    cells = [(_cell(run), (run.shape.d_model, run.shape.experts)) for run in runs if run.probes and kind in run.probes]
    effect = sparsity_effect(
        np.array([cell.bits_per_byte(kind) for cell, _ in cells]),
        np.array([cell.loss for cell, _ in cells]),
        np.array([cell.sparsity for cell, _ in cells]),
        [shape for _, shape in cells],
    )
    shapes = len({shape for _, shape in cells})
    resolved = effect is not None and not _low(effect) <= 0 <= _high(effect)
    return EqualLossEffect(
        effect_of_sparsity=effect,
        cells=len(cells),
        resolved=resolved,
        sentence=_sentence(kind, effect, resolved, f"{len(cells)} cells of {shapes} shapes"),
    )


def sparsity_effect(
    bits: np.ndarray, loss: np.ndarray, sparsity: np.ndarray, shapes: Sequence[tuple[int, int]]
) -> Interval | None:
    """Change of bits per byte for a step of sparsity at equal loss, by least squares with a constant.

    Cells of one shape are not independent, so the standard error is that of a bootstrap over shapes; the interval is
    Student's. None where there are too few shapes, or where loss and sparsity cannot be told apart.
    """
    names = sorted(set(shapes))
    if len(names) < LEAST_SHAPES:
        return None
    x_RK = np.column_stack([np.ones_like(loss), loss, sparsity / STEP])
    member_GR = np.array([[shape == name for shape in shapes] for name in names], dtype=float)
    products_GKK = np.einsum("gr,ri,rj->gij", member_GR, x_RK, x_RK)
    targets_GK = member_GR @ (x_RK * bits[:, np.newaxis])
    draws_BG = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    counts_BG = np.concatenate([np.ones((1, len(names)), int), draws_BG])  # all shapes once, then the resamples
    products_BKK = np.einsum("bg,gij->bij", counts_BG, products_GKK)
    whole_B = np.linalg.matrix_rank(products_BKK, hermitian=True) == TERMS
    if not whole_B[0]:
        return None
    inverse_BKK = np.asarray(np.linalg.inv(products_BKK[whole_B]), dtype=float)  # pyright: ignore  # numpy's type is open
    slopes_BK = np.einsum("bij,bj->bi", inverse_BKK, (counts_BG @ targets_GK)[whole_B])
    effect, error = float(slopes_BK[0, -1]), float(np.std(slopes_BK[1:, -1], ddof=1))
    half = t_quantile(CONFIDENCE, len(names) - TERMS) * error
    return Interval(mean=effect, low=effect - half, high=effect + half)


def _sentence(kind: ProbeKind, effect: Interval | None, resolved: bool, data: str) -> str:
    if effect is None:
        return f"At equal validation loss, {kind} was not compared: {data} allow no regression on loss and sparsity."
    numbers = (
        f"{signed(effect.mean, '.4f')} {EFFECT_UNIT}, 95 % interval {signed(_low(effect), '.4f')} to"
        f" {signed(_high(effect), '.4f')}, from {data}"
    )
    if not resolved:
        return (
            f"At equal validation loss, whether sparser models {VERBS[kind][0]} is not resolved at this size:"
            f" the interval holds 0 ({numbers})."
        )
    return f"At equal validation loss, sparser models {VERBS[kind][effect.mean > 0]}: {numbers}."


def _low(effect: Interval) -> float:
    assert effect.low is not None
    return effect.low


def _high(effect: Interval) -> float:
    assert effect.high is not None
    return effect.high
