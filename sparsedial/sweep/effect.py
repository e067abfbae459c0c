"""The effect of a selection: equal models on the kept part, on a random part of its size, and on the full text.

Runs of one seed begin with the same weights and draw their windows by the same seed, so they are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sparsedial.records.effect import (
    Better,
    Direction,
    Effect,
    EffectBudget,
    EffectPlan,
    EffectPoint,
    EqualTotal,
    Part,
)
from sparsedial.records.evaluation import PairedDifference
from sparsedial.records.probes import ProbeKind, bits_per_byte
from sparsedial.records.quantities import Interval
from sparsedial.records.recipe import Dtype, Recipe
from sparsedial.records.run import Run
from sparsedial.runs.executor import Executor, Task
from sparsedial.runs.job import Job
from sparsedial.runs.policy import Listener, Shelf, carry_out
from sparsedial.sweep.effect_design import SCORED_TOKENS, training_flops
from sparsedial.sweep.effect_words import direction_words, effect_words, repeats_words
from sparsedial.sweep.paired import Losses, SeededRuns, is_above, is_below, mean_difference, paired_difference
from sparsedial.sweep.verdict import CONFIDENCE, mean_interval
from sparsedial.units import bare_exponent

PARTS: tuple[Part, ...] = ("kept", "random", "full")
OTHERS: dict[Part, tuple[Part, Part]] = {
    "kept": ("random", "full"),
    "random": ("kept", "full"),
    "full": ("kept", "random"),
}
NO_PROBES = "no probes were asked for"
ALL_DIVERGED = "every run diverged"
DomainLosses = Callable[[Run], Mapping[str, float]]  # test loss of a run by domain


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One part, and the executor of its runs."""

    text_digest: str
    train_tokens: int
    executor: Executor
    shelf: Shelf


@dataclass(frozen=True, kw_only=True)
class EffectLab:
    """What is fixed for all parts."""

    plan: EffectPlan
    benches: Mapping[Part, Bench]
    tokenizer: str  # its digest
    listener: Listener
    kernels: str
    device: str
    dtype: Dtype
    threads: int  # per run
    seed: int  # before the first one
    by_domain: DomainLosses | None  # None for a text without domains

    @property
    def seeds(self) -> range:
        """Of the runs of each part at each budget."""
        return range(self.seed + 1, self.seed + 1 + self.plan.inputs.seeds)

    def task(self, part: Part, budget: EffectBudget, steps: int, seed: int) -> Task:
        """One run of a part."""
        plan, bench = self.plan, self.benches[part]
        recipe = Recipe(
            learning_rate=budget.learning_rate,
            steps=steps,
            batch=plan.batch,
            context=plan.context,
            seed=seed,
            dtype=self.dtype,
        )
        job = Job(
            shape=budget.shape,
            recipe=recipe,
            text_digest=bench.text_digest,
            tokenizer=self.tokenizer,
            device=self.device,
            threads=self.threads,
            kernels=self.kernels,
        )
        return Task(
            job=job,
            label=f"{part} part, {bare_exponent(f'{budget.budget_flops:.2g}')} FLOPs, seed {seed}",
            splits=("validation", "test"),
            evaluation_tokens=SCORED_TOKENS,
            keep_checkpoint=self.by_domain is not None,
            probes=plan.inputs.probes is not None,
        )


@dataclass(frozen=True, kw_only=True)
class Trained(SeededRuns):
    """The runs of one part at one budget, by seed."""

    part: Part
    budget: EffectBudget
    train_tokens: int


Measured = Mapping[tuple[Part, float], Trained]  # by part and budget


def measure_effect(lab: EffectLab, random_digest: str, elapsed_seconds: Callable[[], float]) -> Effect:
    """Train the models of all parts, and compare them on text that none of them was trained on.

    Raises: UserError where a run cannot be done.
    """
    budgets = lab.plan.budgets
    measured = train_parts(lab, budgets, lambda budget: budget.steps, PARTS)
    pay = [budget for budget in budgets if budget.steps_at_equal_total]
    paid = train_parts(lab, pay, lambda budget: budget.steps_at_equal_total or 0, ("kept",))
    against_random, against_full = (_kept_minus(measured, budgets, other) for other in OTHERS["kept"])
    top = budgets[-1]
    winner = best_part({part: measured[part, top.budget_flops].test_losses for part in PARTS})
    change = lead_change(measured, budgets, "random")
    return Effect(
        budgets_flops=tuple(budget.budget_flops for budget in budgets),
        seeds=len(lab.seeds),
        confidence=CONFIDENCE,
        points=tuple(_point(lab, one) for one in measured.values()),
        kept_minus_random=against_random,
        kept_minus_full=against_full,
        winner=winner,
        direction_over_budgets=direction(change),
        change_over_budgets=change,
        direction_against_full=direction(lead_change(measured, budgets, "full")),
        sentence=effect_words(winner, top.budget_flops, against_random[-1], against_full[-1]),
        direction_sentence=direction_words(change, [budget.budget_flops for budget in budgets]),
        repeats_sentence=repeats_words({part: _repeats(measured[part, top.budget_flops]) for part in PARTS}),
        equal_total=equal_total(lab, pay, measured, paid) if pay else None,
        equal_total_reason=_no_total(lab.plan),
        plan=lab.plan,
        random_digest=random_digest,
        flops=training_flops(lab.plan),
        seconds=elapsed_seconds(),
    )


def train_parts(
    lab: EffectLab, budgets: Sequence[EffectBudget], steps: Callable[[EffectBudget], int], parts: Sequence[Part]
) -> Measured:
    """Train every seed at these budgets, part by part. What was trained before is not trained again."""
    found: dict[tuple[Part, float], Trained] = {}
    for part in parts:
        bench = lab.benches[part]
        tasks = {
            (budget.budget_flops, seed): lab.task(part, budget, steps(budget), seed)
            for seed in lab.seeds
            for budget in budgets
        }
        runs = carry_out(
            [(task,) for task in tasks.values()], executor=bench.executor, shelf=bench.shelf, listener=lab.listener
        )
        for budget in budgets:
            of_budget = {seed: runs[tasks[budget.budget_flops, seed].job.hash] for seed in lab.seeds}
            found[part, budget.budget_flops] = Trained(
                part=part, budget=budget, runs=of_budget, train_tokens=bench.train_tokens
            )
    return found


def _kept_minus(
    measured: Measured, budgets: Sequence[EffectBudget], other: Part, kept: Measured | None = None
) -> tuple[PairedDifference | None, ...]:
    """Test loss of the kept part minus another's, by budget, paired by seed."""
    return tuple(
        paired_difference(
            (kept or measured)["kept", budget.budget_flops].test_losses,
            measured[other, budget.budget_flops].test_losses,
        )
        for budget in budgets
    )


def best_part(losses: Mapping[Part, Losses]) -> Better:
    """The part whose loss is below both others', each by its whole interval; `undecided` where there is none."""
    for part, others in OTHERS.items():
        if all(is_below(paired_difference(losses[part], losses[other])) for other in others):
            return part
    return "undecided"


def lead_change(measured: Measured, budgets: Sequence[EffectBudget], other: Part) -> PairedDifference | None:
    """By how much the lead of the kept part over another grows from the first to the last budget, paired by seed.

    The lead is the other's loss minus the kept part's: above 0 where the kept part is better.
    """
    first, last = (
        {
            seed: measured[other, budget.budget_flops].test_losses[seed] - loss
            for seed, loss in measured["kept", budget.budget_flops].test_losses.items()
            if seed in measured[other, budget.budget_flops].test_losses
        }
        for budget in (budgets[0], budgets[-1])
    )
    return mean_difference([last[seed] - first[seed] for seed in sorted(first.keys() & last.keys())])


def direction(change: PairedDifference | None) -> Direction:
    """Where a lead goes from the smaller to the larger budget, if the interval of its change says so."""
    if is_above(change):
        return "grows"
    return "shrinks" if is_below(change) else "unresolved"


def equal_total(lab: EffectLab, budgets: Sequence[EffectBudget], measured: Measured, paid: Measured) -> EqualTotal:
    """The comparison in which the kept side has so many tokens less that its score is paid for."""
    top = budgets[-1].budget_flops
    against_random, against_full = (_kept_minus(measured, budgets, other, paid) for other in OTHERS["kept"])
    winner = best_part(
        {"kept": paid["kept", top].test_losses, **{part: measured[part, top].test_losses for part in OTHERS["kept"]}}
    )
    return EqualTotal(
        selection_flops=lab.plan.inputs.selection_flops,
        budgets_flops=tuple(budget.budget_flops for budget in budgets),
        points=tuple(_point(lab, one) for one in paid.values()),
        kept_minus_random=against_random,
        kept_minus_full=against_full,
        winner=winner,
        sentence=effect_words(winner, top, against_random[-1], against_full[-1], paid=True),
    )


def _no_total(plan: EffectPlan) -> str | None:
    """Why models that pay for the score are missing, or missing at some budget."""
    if not plan.inputs.selection_flops:
        return "the selection uses no model, so equal training FLOPs are equal total FLOPs"
    short = [f"{one.budget_flops:.3g}" for one in plan.budgets if not one.steps_at_equal_total]
    if not short:
        return None
    return (
        f"the score cost {plan.inputs.selection_flops:.3g} FLOPs, which leaves too little of"
        f" {' and of '.join(short)} to train on"
    )


def _repeats(trained: Trained) -> float:
    return next(iter(trained.runs.values())).tokens / trained.train_tokens


def _point(lab: EffectLab, trained: Trained) -> EffectPoint:
    runs, finished = list(trained.runs.values()), list(trained.finished.values())
    asked = lab.plan.inputs.probes is not None

    def mean(name: str) -> Interval | None:
        return mean_interval([getattr(run, name) for run in finished]) if finished else None

    return EffectPoint(
        part=trained.part,
        budget_flops=trained.budget.budget_flops,
        flops=runs[0].flops,
        tokens=runs[0].tokens,
        repeats=_repeats(trained),
        loss=mean("test_loss"),
        bits_per_byte=mean("test_bits_per_byte"),
        validation_loss=mean("validation_loss"),
        domains=_domains([lab.by_domain(run) for run in finished]) if lab.by_domain and finished else None,
        probes=_probes(finished) if asked and finished else None,
        probes_reason=None if asked and finished else ALL_DIVERGED if asked else NO_PROBES,
        runs=tuple(run.hash for run in runs),
        diverged=len(runs) - len(finished),
    )


def _domains(losses: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    return {name: mean_interval([one[name] for one in losses]) for name in losses[0]}


def _probes(runs: Sequence[Run]) -> dict[ProbeKind, Interval]:
    scores = [run.probes for run in runs if run.probes is not None]
    return {kind: mean_interval([bits_per_byte(one, kind) for one in scores]) for kind in scores[0]}
