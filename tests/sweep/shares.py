"""Shares of a text in a simulated world, where what each is worth to sparse and to dense models is made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from sparsedial.records.kept import KeptRuns, KeptShare, StudySelection
from sparsedial.records.quantities import Family, family_of
from sparsedial.runs.simulated import Simulated, World
from sparsedial.shape.shape import Shape
from sparsedial.sweep.crossing import Crossing, KeptText
from sparsedial.sweep.kept import AtBudget, cross, crossed_models
from sparsedial.sweep.lab import Lab
from tests.sweep.simulation import TEXT, steady

SHARES = (1.0, 0.5, 0.25)
Worth = Mapping[tuple[float, Family], float]  # nats that a share adds to the loss of a family's models


def share_of(kept: float) -> KeptShare:
    """A share, as a text of its own."""
    digest = TEXT.digest if kept == 1 else f"{int(1000 * kept):064}"
    return KeptShare(
        kept=kept,
        train_tokens=int(kept * TEXT.train_tokens),
        text_digest=digest,
        manifest_digest=None if kept == 1 else digest[::-1],
        folder=None if kept == 1 else f"shares/random-{kept:g}",
    )


def crossing(shares: tuple[float, ...] = SHARES, selection_flops: float = 0.0, **more: object) -> Crossing:
    """What is asked, without texts."""
    tokens = TEXT.validation_tokens + TEXT.test_tokens
    values = {"method": "random", "shares": len(shares), "seeds": 3, "scored_tokens": tokens, **more}
    return Crossing(**values, selection_flops=selection_flops)  # type: ignore[arg-type]


def level_world(worth: Worth, kept: float, **changes: float) -> World:
    """A world in which all models are alike, but for what a share is worth to their family."""
    at = steady()

    def loss(shape: Shape, tokens: int) -> float:
        return 2.0 + worth.get((kept, family_of(shape.experts)), 0.0)

    def best_rate(shape: Shape, tokens: int) -> float:
        return at.rates["adamw"].model.at(shape, tokens)

    return replace(at.bench.executor.world, loss=loss, best_rate=best_rate, **changes)  # type: ignore[arg-type]


def lab_of(
    worth: Worth,
    seed: int = 0,
    shares: tuple[float, ...] = SHARES,
    selection_flops: float = 0.0,
    world: Callable[..., World] = level_world,
    **changes: float,
) -> Lab:
    """A lab after its verdict, with an executor for each share."""
    executors = [Simulated(world(worth, kept, **changes), seed=seed) for kept in shares]
    texts = tuple(
        KeptText(share=share_of(kept), open=lambda _, each=each: each)
        for kept, each in zip(shares, executors, strict=True)
    )
    asked = replace(crossing(shares, selection_flops), texts=texts)
    return replace(steady().bench.lab, archive=Shelves(executors), executor=executors[0], crossing=asked)


class Shelves:
    """The runs of several executors."""

    def __init__(self, executors: list[Simulated]) -> None:
        self.executors = executors

    def find(self, run_hash: str):
        """The run that ended with this hash, on any of them."""
        return next((run for each in self.executors if (run := each.find(run_hash)) is not None), None)

    def has_checkpoint(self, run_hash: str) -> bool:
        """Whether any kept its checkpoint."""
        return any(each.has_checkpoint(run_hash) for each in self.executors)


def models_of(lab: Lab) -> AtBudget:
    """The models of both budgets."""
    at = steady()
    return crossed_models(lab, at.rates, at.law, at.cells, at.contest.flops)


def crossed_in(worth: Worth, seed: int = 0, paid: bool = False, **changes) -> StudySelection:
    """What is found in such a world."""
    lab = lab_of(worth, seed, **changes)
    models = models_of(lab)
    wanted = KeptRuns(budgets_flops=tuple(sorted(models)), at_equal_total=paid)
    return cross(lab, steady().rates, models, wanted)
