"""A study in a simulated world: the law, the machine and the text are made up, so what it concludes can be checked."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparsedial.law.forms import FORMS
from sparsedial.law.law import Law
from sparsedial.machine.card import Card
from sparsedial.machine.profile import Profile
from sparsedial.records.law import Comparison
from sparsedial.records.recipe import Recipe
from sparsedial.records.study import Frozen, Inputs, VerdictSeeds
from sparsedial.records.text import HeldOutCounts, OverlapShares, TextSummary, TokenizerWords
from sparsedial.runs.clock import Clock
from sparsedial.runs.simulated import Simulated, World
from sparsedial.shape.counts import active_parameters
from sparsedial.shape.shape import Shape
from sparsedial.sweep.cells import Cells
from sparsedial.sweep.crossing import Crossing
from sparsedial.sweep.design import design, evaluation_tokens
from sparsedial.sweep.driver import conduct
from sparsedial.sweep.findings import Findings
from sparsedial.sweep.grid import train_grid
from sparsedial.sweep.judge import Contest, Judged, Named, contest, judge, name_rivals
from sparsedial.sweep.lab import Lab
from sparsedial.sweep.laws import Forecast, StudyLaw
from sparsedial.sweep.layout import Layout
from sparsedial.sweep.notebook import Notebook
from sparsedial.sweep.question import Question
from sparsedial.sweep.rates import RatesBy
from sparsedial.sweep.scan import scan_rates
from tests.machine.test_profile import profile_of, seconds_of

PROFILE = profile_of(0.0)
TRUE_FORM = "chinchilla_sparsity"
TEXT = TextSummary(
    digest="ab" * 32,
    train_tokens=50_000_000,
    validation_tokens=500_000,
    test_tokens=500_000,
    bytes=51_000_000,
    documents=700,
    tokenizer=TokenizerWords(name="bytes", vocab_size=256, digest="cd" * 32),
    sources=(),
    source_digest="ef" * 32,
    python_version="3.11.7",
    files_left_out=0,
    split_by="module",
    documents_cut=0,
    duplicates_removed=HeldOutCounts(validation=0, test=0),
    duplicates_in_train=0,
    overlap=OverlapShares(
        validation=0.01,
        test=0.01,
        test_in_validation=0.0,
        window_bytes=64,
        sampled_windows=HeldOutCounts(validation=1000, test=1000),
    ),
    documents_changed_by_tokenizer=0,
)


def true_law(mu: float = 0.05, **coefficients: float) -> Law:
    """The law that is true of a world; sparsity is worth nothing at `mu` 0."""
    values = {"e": 1.0, "a": 60.0, "b": 120.0, "alpha": 0.4, "beta": 0.37, "mu": mu, **coefficients}
    names = FORMS[TRUE_FORM].coefficients
    return Law(
        form=TRUE_FORM,
        coefficients={name: values[name] for name in names},
        intervals={name: (values[name], values[name]) for name in names},
        confidence=0.9,
        samples=(tuple(values[name] for name in names),) * 2,
        runs=36,
        rmse_log_loss=0.003,
        fitted_range={},
        undetermined=(),
        seed=0,
    )


@dataclass(frozen=True)
class Known:
    """Laws that need no fit."""

    law: Law

    def forecast(self, layout: Layout, below: Cells, wanted: str | None) -> Forecast:
        """The law itself."""
        return Forecast(form=TRUE_FORM, comparison=Comparison(rule="none", forms={}), law=self.law)

    def of_all(self, layout: Layout, cells: Cells, before: Forecast) -> StudyLaw:
        """The law itself."""
        return StudyLaw(law=self.law, refused=None, forecast=before)


def best_rate(shape: Shape, tokens: int) -> float:
    """Falls with size and a little with tokens, as the sweep's own start expects."""
    return 0.01 * (active_parameters(shape) / 4e4) ** -0.3 * (tokens / 5e5) ** -0.1


def true_seconds(shape: Shape, recipe: Recipe) -> float:
    """The machine that `profile_of` is fitted to."""
    return seconds_of(shape, recipe.batch, recipe.context)


def world_of(law: Law, **changes: Any) -> World:
    """A world where this law is true."""

    def loss(shape: Shape, tokens: int) -> float:
        return law.loss(**law.variables(shape, tokens))

    held_out = (("validation", TEXT.validation_tokens), ("test", TEXT.test_tokens))
    given = {"best_rate": best_rate, "step_seconds": true_seconds, "scoring_tokens": held_out, **changes}
    return World(loss=loss, **given)


LAW = true_law()
WORLD = world_of(LAW)
STILL = replace(WORLD, seed_noise=0.0)


H100 = Card(memory_bytes=80e9, processors=132, capability=(9, 0))


def asked(**changes: object) -> Question:
    """A study of ten minutes on two workers."""
    inputs = Inputs(
        time=None,
        budgets=(),
        sparsities=(0.0, 0.75, 0.9375),
        top_k=2,
        shared_experts=1,
        tokenizer="bytes",
        context=None,
        batch=8,
        max_total_parameters=None,
        memory=None,
        seeds=None,
        seed=0,
        cell_seeds=1,
        form=None,
        device="cpu",
        optimizers=("adamw",),
        text="",
    )
    values = {name: getattr(inputs, name) for name in inputs.__struct_fields__} | changes
    card = H100 if values["device"] == "cuda" else None
    return Question(inputs=Inputs(**values), sources=(), workers=2, out=Path("simulated"), card=card)  # type: ignore[arg-type]


class Silent:
    """Hears of progress and remembers what ended."""

    def __init__(self) -> None:
        self.ended_labels: list[str] = []

    def moved(self, event: object) -> None:
        """A running task moved."""

    def ended(self, task, run) -> None:
        """A task ended."""
        self.ended_labels.append(task.label)


@functools.cache
def layout_with(question: Question, crossing: Crossing | None) -> Layout:
    """What a question lays on the machine of PROFILE, with time for runs on shares of the text."""
    return design(question, 256, lambda *_: PROFILE, lambda: 0.0, crossing)[0]


def layout_of(question: Question) -> Layout:
    """What a question lays on the machine of PROFILE."""
    return layout_with(question, None)


@dataclass(frozen=True)
class Bench:
    """A lab in a simulated world, with what tests look at."""

    lab: Lab
    executor: Simulated
    notebook: Notebook


def bench(
    world: World = WORLD,
    *,
    question: Question | None = None,
    layout: Layout | None = None,
    profile: Profile = PROFILE,
    seed: int = 0,
    limit_seconds: float | None = None,
) -> Bench:
    """A lab for a question, laid as the study itself lays it, or for a given layout."""
    question = asked() if question is None else question
    assert layout is not None or not question.inputs.budgets, "stated budgets come with their layout"
    executor = Simulated(world, workers=question.workers, seed=seed)
    if layout is None:
        layout = layout_of(question)
    limit = question.limit_seconds if limit_seconds is None else limit_seconds
    clock = Clock(limit, now=executor.now)
    lab = Lab(
        layout=layout,
        profile=profile,
        text=TEXT,
        archive=executor,
        executor=executor,
        listener=Silent(),
        clock=clock,
        workers=question.workers,
        threads=1,
        kernels="compiled",
        device="cpu",
        dtype="float32",
        evaluation_tokens=evaluation_tokens(layout),
        seed=question.inputs.seed,
        probe_tokens=question.probe_tokens,
    )
    notebook = Notebook(None)
    notebook.freeze(
        Frozen(inputs=question.bound_to(TEXT.digest), layout=layout, profile_digest="0", evaluation_tokens=1 << 16)
    )
    notebook.clock = clock
    return Bench(lab, executor, notebook)


@dataclass(frozen=True)
class AtVerdict:
    """A study up to its verdict, which many executors may then carry out."""

    bench: Bench
    law: Law
    rates: RatesBy
    cells: Cells
    named: Named
    contest: Contest

    def chosen(self, world: World, seed: int, selection: int = 2) -> Contest:
        """The models that are sent in a world, with noise of its own."""
        executor = Simulated(world, workers=self.bench.lab.workers, seed=seed)
        lab = replace(self.bench.lab, archive=executor, executor=executor)
        seeds = VerdictSeeds(flops=selection, seconds=selection)
        return contest(lab, self.rates, self.law, self.cells, self.named, seeds)

    def judged(self, world: World, seed: int, seeds: int = 3) -> Judged:
        """The verdict in a world, with noise of its own."""
        executor = Simulated(world, workers=self.bench.lab.workers, seed=seed)
        lab = replace(self.bench.lab, archive=executor, executor=executor)
        return judge(lab, self.rates, self.law, self.contest, VerdictSeeds(flops=seeds, seconds=seeds))


def at_verdict(law: Law = LAW, world: World = WORLD, **given: Any) -> AtVerdict:
    """Do a study up to its verdict."""
    made = bench(world, **given)
    lab = made.lab
    rates = {name: scan_rates(lab, name) for name in lab.optimizers}
    cells = train_grid(lab, rates[lab.optimizers[0]].model, lab.layout.budgets, {})
    named = name_rivals(lab, rates, law, cells)
    chosen = contest(lab, rates, law, cells, named, VerdictSeeds(flops=2, seconds=2))
    return AtVerdict(made, law, rates, cells, named, chosen)


@functools.cache
def steady() -> AtVerdict:
    """A study in WORLD up to its verdict."""
    return at_verdict()


@functools.cache
def whole(seed: int = 0, world: World = WORLD) -> tuple[Bench, Findings]:
    """A whole study whose law is known."""
    made = bench(world, seed=seed)
    return made, conduct(made.lab, made.notebook, laws=Known(LAW))
