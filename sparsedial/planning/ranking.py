"""A study's own shapes ranked for a budget in any currency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from sparsedial.law.bracket import end_of
from sparsedial.law.law import Law
from sparsedial.machine.profile import Profile
from sparsedial.planning.answer import Answer, band_of, with_bootstrap
from sparsedial.planning.costs import Costs
from sparsedial.planning.planner import NEAR_OPTIMAL
from sparsedial.planning.sampled import optimum_of, span_of
from sparsedial.records.plan import NearOptimal
from sparsedial.records.quantities import Interval
from sparsedial.shape.shape import Shape
from sparsedial.shape.shapes import Shapes

END_WORDS = {"smaller": "smallest", "larger": "largest"}


def rank(
    law: Law,
    shapes: Sequence[Shape],
    *,
    currency: str,
    budget: float,
    profile: Profile,
    batch: int,
    context: int,
    least_steps: int = 1,
) -> list[Answer]:
    """An answer for every shape that the budget trains for at least `least_steps`, best predicted loss first.

    A run is a whole number of steps.
    """
    columns, step_tokens = Shapes.of(shapes), batch * context
    per_token = Costs(machine=profile, batch=batch, context=context).per_token(columns, currency)
    steps = (budget / (per_token * batch * context)).astype(int)
    enough = np.flatnonzero(steps >= least_steps)
    if not len(enough):
        return []
    tokens = steps[enough] * step_tokens
    variables = law.variables(columns.pick(enough), tokens)
    means = law.loss(**variables)
    lows, highs = law.interval(**variables)
    answers = [
        Answer(
            shape=shapes[int(number)],
            tokens=int(steps[number]) * step_tokens,
            predicted=with_bootstrap(float(mean), float(low), float(high)),
            cost=float(per_token[number]) * int(steps[number]) * step_tokens,
        )
        for number, mean, low, high in zip(enough, means, lows, highs, strict=True)
    ]
    return sorted(answers, key=lambda answer: answer.predicted.mean)


def near_optimal(answers: Sequence[Answer], law: Law | None = None) -> NearOptimal:
    """The ranges of the answers within 0.5 % of the best, and of the best by the samples of a law."""
    best = answers[0].predicted.mean
    near = [answer for answer in answers if answer.predicted.mean <= best * (1 + NEAR_OPTIMAL)]
    band = band_of(Shapes.of([answer.shape for answer in near]), [answer.tokens for answer in near])
    if law is None or not law.samples:
        return band
    shapes, tokens = Shapes.of([answer.shape for answer in answers]), np.array([answer.tokens for answer in answers])
    losses = law.sampled_loss(**law.variables(shapes, tokens))
    return replace(band, sampled=optimum_of(law, shapes, tokens, losses))


def gap_of(law: Law, dense: Answer, sparse: Answer) -> Interval:
    """The loss of a dense answer minus that of a sparse one, with the interval of the law's samples."""
    mean = dense.predicted.mean - sparse.predicted.mean
    if not law.samples:
        return Interval(mean=mean, low=None, high=None)
    shapes, tokens = Shapes.of([dense.shape, sparse.shape]), np.array([dense.tokens, sparse.tokens])
    losses = law.sampled_loss(**law.variables(shapes, tokens))
    low, high = span_of(law, losses[:, 0] - losses[:, 1])
    return Interval(mean=mean, low=low, high=high)


def binding_constraints(best: Shape, shapes: Sequence[Shape]) -> list[str]:
    """The bounds of the search that the best shape is at, in words."""
    bounds: list[str] = []
    most = max(shape.experts for shape in shapes)
    if best.experts and best.experts == most:
        bounds.append(f"experts={most}: the sparsest level tried (sparsity {best.sparsity:.4g})")
    if not best.experts and most:
        bounds.append("experts=0: the dense end of the dial")
    end = end_of(best.d_model, [shape.d_model for shape in shapes if shape.experts == best.experts])
    if end is not None:
        bounds.append(f"d_model={best.d_model}: the {END_WORDS[end]} size tried at this sparsity")
    return bounds
