"""A measured effect in a simulated world, where what each part of a text is worth is made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from sparsedial.records.effect import Effect, EffectInputs, EffectPlan, Part
from sparsedial.runs.simulated import Simulated, World
from sparsedial.shape.shape import Shape
from sparsedial.sweep.effect import PARTS, Bench, EffectLab, measure_effect
from sparsedial.sweep.effect_design import BATCH, CONTEXT, effect_budget
from sparsedial.sweep.rates import start_rates
from tests.sweep.simulation import LAW, Silent, true_seconds, world_of

BUDGETS = (1e11, 4e11)
Worth = Callable[[int], float]  # nats that a part adds to the loss of a model that read so many tokens


def asked(selection_flops: float = 0.0, **changes: object) -> EffectInputs:
    """Two stated budgets with five seeds."""
    values = {
        "time": None,
        "budgets": BUDGETS,
        "seeds": 5,
        "tokenizer": "bytes",
        "device": "cpu",
        "manifest_digest": "ab" * 32,
        "selection_flops": selection_flops,
    }
    return EffectInputs(**{**values, **changes})  # type: ignore[arg-type]


def plan_of(inputs: EffectInputs) -> EffectPlan:
    """The plan of stated budgets."""
    budgets = [effect_budget(budget, 257, inputs.selection_flops) for budget in inputs.budgets]
    return EffectPlan(
        inputs=inputs,
        budgets=tuple(budget for budget in budgets if budget is not None),
        batch=BATCH,
        context=CONTEXT,
        predicted_seconds=1.0,
    )


def world(worth: Worth, **changes: float) -> World:
    """The usual world, in which one part is worth more or less than another."""
    usual = world_of(LAW, step_seconds=true_seconds, best_rate=lambda shape, tokens: start_rates(shape)[1])

    def loss(shape: Shape, tokens: int) -> float:
        return usual.loss(shape, tokens) + worth(tokens)

    return replace(usual, loss=loss, rate_penalty=0.0, **changes)  # type: ignore[arg-type]


def lab_of(
    worths: Mapping[Part, Worth], seed: int = 0, inputs: EffectInputs | None = None, **changes: float
) -> EffectLab:
    """A lab whose parts have these worths; the others are worth nothing. Each has its own executor, with one seed."""
    benches: dict[Part, Bench] = {}
    for number, part in enumerate(PARTS):
        executor = Simulated(world(worths.get(part, lambda tokens: 0.0), **changes), seed=seed)
        tokens = 10_000_000 if part == "full" else 5_000_000
        benches[part] = Bench(text_digest=f"{number:064}", train_tokens=tokens, executor=executor, shelf=executor)
    return EffectLab(
        plan=plan_of(inputs or asked()),
        benches=benches,
        tokenizer="cd" * 32,
        listener=Silent(),
        kernels="torch",
        device="cpu",
        dtype="float32",
        threads=1,
        seed=0,
        by_domain=None,
    )


def effect_of(worths: Mapping[Part, Worth], seed: int = 0, **changes: float) -> Effect:
    """What is measured in such a world."""
    return measure_effect(lab_of(worths, seed, **changes), "ef" * 32, lambda: 1.0)
