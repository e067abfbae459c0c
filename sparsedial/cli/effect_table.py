"""The rows of a measured effect, and the table of what it would cost."""

from __future__ import annotations

from sparsedial.cli.rows import Rows, aligned, lines, under
from sparsedial.records.dry_run import EffectDryRun
from sparsedial.records.effect import Effect, EffectPoint
from sparsedial.showing.numbers import with_interval
from sparsedial.units import bare_exponent, human_bytes, human_count, human_joules, human_seconds

DIVERGED = "every run diverged"


def effect_rows(effect: Effect) -> Rows:
    """The loss of each part at each budget, and what it says in sentences."""
    paid = effect.equal_total
    points: list[tuple[str, EffectPoint]] = [(point.part, point) for point in effect.points]
    points += [("kept, less its score", point) for point in (paid.points if paid else ())]
    cells = aligned([_cells(*one) for one in sorted(points, key=lambda one: one[1].budget_flops)])
    said = [effect.sentence, *([paid.sentence] if paid else []), effect.direction_sentence, effect.repeats_sentence]
    return [*under("test loss", cells), *under("effect", said)]


def _cells(name: str, point: EffectPoint) -> list[str]:
    return [
        name,
        _flops(point.budget_flops),
        f"{human_count(point.tokens)} tokens",
        f"read {point.repeats:.2g} times",
        with_interval(point.loss) if point.loss else DIVERGED,
    ]


def _flops(budget: float) -> str:
    return bare_exponent(f"{budget:.2g}") + " FLOPs"


def effect_dry_table(cost: EffectDryRun) -> str:
    """What a measured effect would cost."""
    models = [
        f"{human_count(parameters)} parameters on {human_count(tokens)} tokens at {_flops(budget)}"
        for parameters, tokens, budget in zip(cost.total_parameters, cost.tokens, cost.budgets_flops, strict=True)
    ]
    return lines(
        [
            ("runs", f"{cost.runs}: {cost.parts} parts, {len(cost.budgets_flops)} budgets, {cost.seeds} seeds"),
            *under("models", models),
            ("FLOPs", f"{cost.flops:.3g}"),
            ("memory", human_bytes(cost.memory_bytes)),
            ("time", f"{human_seconds(cost.seconds)}, beside {cost.not_counted}"),
            ("energy", f"{human_joules(cost.joules)}  ({cost.joules_source})"),
            ("money", f"unknown: {cost.dollars_reason}"),
        ]
    )
