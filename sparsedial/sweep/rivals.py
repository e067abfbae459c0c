"""The rivals of a verdict: the models that the law and the measured cells name as the best of each family."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from sparsedial.law.bracket import end_of, open_side
from sparsedial.law.law import Law
from sparsedial.planning.answer import Answer
from sparsedial.planning.ranking import rank
from sparsedial.records.quantities import Family, family_of
from sparsedial.records.recipe import OptimizerName
from sparsedial.records.study import SELECTION_SEED
from sparsedial.runs.executor import Task
from sparsedial.runs.job import Job
from sparsedial.shape.ladder import RUNGS
from sparsedial.shape.shape import Shape
from sparsedial.sweep.cells import Cells, line_losses
from sparsedial.sweep.lab import TEST_TOKENS, Lab, run_label, token_words
from sparsedial.sweep.layout import LEAST_STEPS, Layout
from sparsedial.sweep.rates import RatesBy, scanned_gain
from sparsedial.units import family_name


class StepKind(NamedTuple):
    """What the time of a training step depends on."""

    shape: Shape
    optimizer: OptimizerName


@dataclass(frozen=True, kw_only=True)
class Rival:
    """One side of a verdict: a shape, its number of steps and its optimizer."""

    family: Family
    shape: Shape
    steps: int
    batch: int  # sequences per step
    optimizer: OptimizerName = "adamw"

    @property
    def kind(self) -> StepKind:
        """The kind of its steps."""
        return StepKind(self.shape, self.optimizer)

    def tokens(self, context: int) -> int:
        """Its training tokens."""
        return self.steps * self.batch * context


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """The best model of each family."""

    dense: Rival
    sparse: Rival

    def both(self) -> tuple[Rival, Rival]:
        """Dense and sparse."""
        return self.dense, self.sparse


@dataclass(frozen=True, kw_only=True)
class Nominees:
    """What one family may send to a verdict: the model that the law predicts to be best, and the best measured one.

    One of them may be missing: the law's where there is no law, the measured one where no cell was trained to its end.
    Both have one optimizer, the most promising one; `by_others` are those with each other one.
    """

    law: Rival | None
    measured: Rival | None
    by_others: tuple[Nominees, ...] = ()

    def different(self) -> tuple[Rival, ...]:
        """The different models: one or two of each optimizer."""
        own = (rival for rival in (self.law, self.measured) if rival is not None)
        return tuple(dict.fromkeys([*own, *(rival for other in self.by_others for rival in other.different())]))

    def naming(self, rival: Rival) -> Nominees:
        """Those among which a model is."""
        return next((other for other in self.by_others if rival in other.different()), self)


def candidates(layout: Layout, cells: Cells, family: Family, beyond: int = 0) -> list[Shape]:
    """A family's shapes on the ladder, from the smallest to the largest width trained with the same number of experts.

    `beyond` adds this many rungs on either side.
    """
    shapes: list[Shape] = []
    for experts in layout.experts:
        if family_of(experts) == family:
            trained = [RUNGS.index(cell.d_model) for cell in cells if cell.experts == experts]
            rungs = RUNGS[max(0, min(trained) - beyond) : max(trained) + beyond + 1]
            shapes += [layout.ladder.shape(rung, experts) for rung in rungs]
    return shapes


def edge(shape: Shape, considered: Iterable[Shape]) -> str | None:
    """A warning where a width is the smallest or largest candidate of its sparsity; None where it is inside."""
    side = end_of(shape.d_model, [other.d_model for other in considered if other.experts == shape.experts])
    if side is None:
        return None
    family = family_name(shape.experts)
    return f"the best {family} size may be {side} than width {shape.d_model}, the last one considered"


def flop_nominees(lab: Lab, rates: RatesBy, law: Law | None, cells: Cells, budget: float) -> Mapping[Family, Nominees]:
    """The law's choice and the best measured cell of each family at a FLOP budget, with each optimizer.

    An optimizer's own arithmetic is not counted, so all have the same steps. The one that was best in the scans of
    learning rates comes first.
    """
    layout = lab.layout

    def nominee(family: Family, shape: Shape | None) -> Rival | None:
        if shape is None:
            return None
        steps = layout.steps_for(shape, budget)
        return Rival(family=family, shape=shape, steps=steps, batch=layout.batch)

    def predicted(family: Family) -> Shape | None:
        if law is None:
            return None
        return ranked(lab, law, candidates(layout, cells, family), "flops", budget)[0].shape

    def named(family: Family) -> Nominees:
        return Nominees(
            law=nominee(family, predicted(family)),
            measured=nominee(family, _best_measured(layout, cells, budget, family, least=law is None)),
        )

    families: tuple[Family, Family] = ("dense", "sparse")
    grid: dict[Family, Nominees] = {family: named(family) for family in families}

    def by_all(family: Family) -> Nominees:
        order = sorted(lab.optimizers, key=lambda optimizer: -scanned_gain(rates, family, optimizer))
        first, *others = (_moved_by(grid[family], optimizer) for optimizer in order)
        return replace(first, by_others=tuple(others))

    return {family: by_all(family) for family in families}


def _moved_by(nominees: Nominees, optimizer: OptimizerName) -> Nominees:
    """The same models with another optimizer."""
    law, measured = (rival and replace(rival, optimizer=optimizer) for rival in (nominees.law, nominees.measured))
    return Nominees(law=law, measured=measured)


def ranked(lab: Lab, law: Law, shapes: Sequence[Shape], currency: str, budget: float) -> list[Answer]:
    """Answers for these shapes at a budget, best predicted loss first."""
    return rank(
        law,
        shapes,
        currency=currency,
        budget=budget,
        profile=lab.profile,
        batch=lab.layout.batch,
        context=lab.context,
        least_steps=LEAST_STEPS,
    )


def _best_measured(layout: Layout, cells: Cells, budget: float, family: Family, least: bool) -> Shape | None:
    """The shape of the family's best cell at a budget; where all diverged, None, or with `least` one of them."""
    losses = {
        cell: result.bounded_loss
        for cell, result in cells.items()
        if cell.budget_flops == budget and family_of(cell.experts) == family
    }
    best = min(losses, key=lambda cell: losses[cell])
    return layout.shape(best) if least or losses[best] < math.inf else None


def open_sides(cells: Cells, rivals: Rivals, budget: float) -> list[str]:
    """Warnings for the sides on which a rival's minimum was not bracketed at the largest budget."""
    sides: list[str] = []
    for rival in rivals.both():
        experts = rival.shape.experts
        losses = line_losses(cells, experts, budget)
        side = open_side(losses) if losses else "larger"
        if side is not None:
            last = min(losses) if side == "smaller" else max(losses)
            family = family_name(experts)
            sides.append(f"the best {family} size may be {side} than width {last}, the last one trained")
    return sides


def selection_task(lab: Lab, rates: RatesBy, rival: Rival, seed: int) -> Task:
    """One run of a nominee with a seed that neither the grid nor a verdict uses, scored on validation text."""
    return Task(
        job=_job(lab, rates, rival, SELECTION_SEED + seed),
        label=_label(lab, rival, f", selection, seed {seed}"),
        evaluation_tokens=lab.evaluation_tokens,
    )


def verdict_task(lab: Lab, rates: RatesBy, rival: Rival, seed: int, alone: bool, again: bool = False) -> Task:
    """One run of a rival with a seed that the grid did not use, scored on test text."""
    what = f", seed {seed}" + (", timed" if alone else "") + (" again" if again else "")
    return Task(
        job=_job(lab, rates, rival, seed),
        label=_label(lab, rival, what),
        splits=("validation", "test"),
        evaluation_tokens=TEST_TOKENS,
        alone=alone,
        keep_checkpoint=True,
    )


def _job(lab: Lab, rates: RatesBy, rival: Rival, seed: int) -> Job:
    """A run of a rival; its seed is counted from the grid's."""
    rate = rates[rival.optimizer].model.at(rival.shape, rival.tokens(lab.context))
    return lab.job(rival.shape, rival.steps, rival.batch, rate, lab.seed + seed, rival.optimizer)


def _label(lab: Lab, rival: Rival, what: str) -> str:
    """The words of a rival's run; they name its optimizer where that is not the grid's."""
    by = "" if rival.optimizer == lab.optimizers[0] else f", {rival.optimizer}"
    return run_label(rival.shape.d_model, rival.shape.experts, token_words(rival.tokens(lab.context)), by + what)


def predicted_loss(law: Law, rival: Rival, context: int) -> float:
    """A rival's loss by the law."""
    return law_loss(law, rival.shape, rival.tokens(context))


def law_loss(law: Law, shape: Shape, tokens: int) -> float:
    """A shape's loss by the law."""
    return law.loss(**law.variables(shape, tokens))
