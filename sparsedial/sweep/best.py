"""The best model of a study: the better side of its verdict, or else the best cell of its grid."""

from __future__ import annotations

from typing import Literal

from sparsedial.records.best import BestModel
from sparsedial.records.plan import NearOptimal
from sparsedial.records.quantities import Interval
from sparsedial.records.run import Run
from sparsedial.records.verdict import Side, Verdict
from sparsedial.sweep.cells import Cells, line_losses

NO_SAMPLES = "the law has no samples"


def best_model(cells: Cells, verdict: Verdict, near: NearOptimal) -> BestModel | None:
    """The better side of the verdict at equal FLOPs; without sides, the best cell of the largest budget that has any.

    `near` is what the law says of the best sparsity. None where no cell was trained to its end.
    """
    sides, budget = verdict.sides(), verdict.budget.value
    if sides is not None and budget is not None:
        better = min(sides, key=lambda side: side.loss.mean)
        return _best(better, better.loss, "test", budget, cells, near)
    finished = [(cell.budget_flops, result) for cell, result in cells.items() if result.loss is not None]
    if not finished:
        return None
    budget = max(budget for budget, _ in finished)
    result = min((result for at, result in finished if at == budget), key=lambda result: result.bounded_loss)
    loss = Interval(mean=result.bounded_loss, low=None, high=None)
    return _best(result.run, loss, "validation", budget, cells, near)


def _best(
    model: Side | Run,
    loss: Interval,
    split: Literal["test", "validation"],
    budget: float,
    cells: Cells,
    near: NearOptimal,
) -> BestModel:
    experts, sampled = model.shape.experts, near.sampled
    return BestModel(
        shape=model.shape,
        sparsity=model.sparsity,
        tokens=model.tokens,
        total_parameters=model.total_parameters,
        active_parameters=model.active_parameters,
        optimizer=model.optimizer,
        budget_flops=budget,
        loss=loss,
        split=split,
        sparsest_tried=bool(experts) and experts == max(cell.experts for cell in cells),
        open_size=_open_size(model.shape.d_model, set(line_losses(cells, experts, budget))),
        sparsity_interval=sampled and sampled.sparsity,
        sparsity_interval_confidence=sampled and sampled.confidence,
        sparsity_interval_reason=None if sampled else near.sparsity_reason or NO_SAMPLES,
    )


def _open_size(width: int, tried: set[int]) -> Literal["smaller", "larger"] | None:
    """The side of a width on which none was tried, or None."""
    if not any(other > width for other in tried):
        return "larger"
    return None if any(other < width for other in tried) else "smaller"
