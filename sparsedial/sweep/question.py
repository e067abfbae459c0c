"""The question of a study: its settings, checked and with defaults filled in, before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from msgspec.structs import replace

from sparsedial.errors import UserError, nearest
from sparsedial.law.forms import STUDY_FORMS
from sparsedial.machine.at_once import NUMBERS
from sparsedial.machine.card import Card
from sparsedial.machine.hardware import usable_cores
from sparsedial.records.recipe import OptimizerName
from sparsedial.records.study import Inputs
from sparsedial.sweep.crossing import CROSSED_SEEDS
from sparsedial.text.probes import Mixture
from sparsedial.units import spelled_seconds

# Ratios of the budgets, by the smallest time in seconds. The largest budget is held out, so it is far from the next.
# The first ratios that fit are used. Two budgets allow no check of a law, so they come last.
BUDGET_RATIOS: dict[float, tuple[tuple[float, ...], ...]] = {
    0.0: ((1.0, 2.0, 4.0), (1.0, 3.0), (1.0, 2.0)),
    16 * 60.0: ((1.0, 2.0, 6.0), (1.0, 2.0, 4.0), (1.0, 2.0)),
    40 * 60.0: ((1.0, 3.0, 9.0, 27.0), (1.0, 2.0, 6.0)),
}
LONG_SECONDS = max(BUDGET_RATIOS)
DEFAULT_SECONDS = 600.0
LEAST_SECONDS = 60.0
BOTH_SECONDS = 600.0  # from here on rivals may have either optimizer; below, that leaves too little for the grid
SHORT_SEEDS, LONG_SEEDS = 3, 5
SHORT_CONTEXT, LONG_CONTEXT = 64, 128


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a study is asked, and its means.

    Raises: UserError for values that no study can have.
    """

    inputs: Inputs  # the settings that its folder is bound to; the text's digest is not known yet
    sources: tuple[str, ...]  # files or folders of text; empty means the standard library
    workers: int | None  # runs at once; None on a GPU: as many as its profile finds fastest
    out: Path
    card: Card | None = None  # the GPU on which it trains

    def __post_init__(self) -> None:
        inputs = self.inputs
        if inputs.budgets and (len(inputs.budgets) < 2 or list(inputs.budgets) != sorted(set(inputs.budgets))):
            raise UserError("needs at least two budgets in rising order", hint="like 1e11,3e11,9e11", field="budgets")
        if inputs.seeds is not None and inputs.seeds < 2:
            raise UserError(f"{inputs.seeds} is too few for an interval", hint="3 or more", field="seeds")
        for name, least in (("context", 8), ("batch", 4), ("cell_seeds", 1), ("top_k", 1), ("shared_experts", 0)):
            value = getattr(inputs, name)
            if value is not None and value < least:
                raise UserError(f"{value} is too small", hint=f"{least} or more", field=name)
        if inputs.form is not None and inputs.form not in STUDY_FORMS:
            raise UserError(
                f"no form named '{inputs.form}' for a study",
                hint=nearest(inputs.form, STUDY_FORMS) or ", ".join(STUDY_FORMS),
                field="form",
            )
        _ = self.experts(), self.probes  # which refuse what cannot be
        self._check_workers()

    def _check_workers(self) -> None:
        workers, cores = self.at_once[0], usable_cores()
        if workers < 1:
            raise UserError(f"{workers} is too small", hint="1 or more", field="workers")
        if not self.on_gpu and workers > cores:
            raise UserError(
                f"{workers} would have to share {cores} cores, and their times would mean nothing",
                hint=f"leave it out, or give at most {cores}",
                field="workers",
            )

    @property
    def limit_seconds(self) -> float:
        """The time limit of the command; infinite with stated budgets."""
        return math.inf if self.inputs.budgets else self.inputs.time or DEFAULT_SECONDS

    @property
    def on_gpu(self) -> bool:
        """Whether its runs train on a GPU."""
        return self.card is not None

    @property
    def at_once(self) -> tuple[int, ...]:
        """The numbers of runs at once to choose from, in rising order."""
        return NUMBERS if self.workers is None else (self.workers,)

    @property
    def processes(self) -> int:
        """Processes that train its runs; a GPU's are all in one."""
        return 1 if self.on_gpu else self.at_once[0]

    @property
    def long(self) -> bool:
        """Whether the time allows four budgets, a longer context and more seeds."""
        return self.limit_seconds >= LONG_SECONDS

    @property
    def seeds(self) -> int:
        """Verdict seeds that the layout plans for."""
        return self.inputs.seeds or (LONG_SEEDS if self.long else SHORT_SEEDS)

    @property
    def optimizers(self) -> tuple[OptimizerName, ...]:
        """The optimizer of the grid, and the others that a verdict's rivals may have."""
        if self.inputs.optimizers:
            return self.inputs.optimizers
        return ("adamw", "muon") if self.limit_seconds >= BOTH_SECONDS else ("adamw",)

    @property
    def context(self) -> int:
        """Tokens of a training window."""
        return self.inputs.context or (LONG_CONTEXT if self.long else SHORT_CONTEXT)

    @property
    def ratios(self) -> Sequence[tuple[float, ...]]:
        """Ratios of the budgets that suit the time, best first."""
        return next(ratios for seconds, ratios in reversed(BUDGET_RATIOS.items()) if self.limit_seconds >= seconds)

    @property
    def probes(self) -> Mixture | None:
        """The probes in the training text, drawn by the seed of the grid; None where none were asked for."""
        share = self.inputs.probes
        return None if share is None else Mixture(share=share, seed=self.inputs.seed)

    @property
    def crossed_seeds(self) -> int:
        """Seeds of each model on each share of the text: the verdict's where they are stated."""
        return max(CROSSED_SEEDS, self.inputs.seeds or 0)

    @property
    def probe_tokens(self) -> int:
        """Tokens of all that each run of the grid is asked, at most; 0 without probes."""
        return 0 if self.probes is None else self.probes.tokens_asked

    def experts(self) -> tuple[int, ...]:
        """Routed experts of each sparsity, dense first.

        Raises: UserError where a sparsity needs a fraction of an expert, or dense is missing.
        """
        inputs = self.inputs
        counts = [_experts(sparsity, inputs.top_k) for sparsity in inputs.sparsities]
        if 0 not in counts or len(set(counts)) < 2:
            raise UserError(
                "needs 0 (dense) and at least one other value", hint="like 0,0.75,0.9375", field="sparsities"
            )
        return tuple(sorted(set(counts)))

    def bound_to(self, text_digest: str) -> Inputs:
        """The settings that the folder is bound to once the text is known."""
        time = None if self.inputs.budgets else self.limit_seconds
        return replace(self.inputs, time=time, text=text_digest)


def _experts(sparsity: float, top_k: int) -> int:
    if not 0 <= sparsity < 1:
        raise UserError(
            f"{sparsity:g} is not at least 0 and below 1", hint="a sparsity is 1 - top_k/experts", field="sparsities"
        )
    exact = top_k / (1 - sparsity) if sparsity else 0.0
    if abs(exact - round(exact)) > 1e-6 * max(exact, 1):
        lower = max(top_k + 1, math.floor(exact))
        raise UserError(
            f"{sparsity:g} with top_k={top_k} needs {exact:.4g} experts, not a whole number",
            hint=f"{1 - top_k / lower:.6g} needs {lower} experts",
            field="sparsities",
        )
    return round(exact)


def require_same(folder: Path, held: Inputs, asked: Inputs) -> None:
    """Raises: UserError with the first field that differs, where a folder is bound to another study."""
    for name in asked.__struct_fields__:
        was, now = getattr(held, name), getattr(asked, name)
        if was != now:
            what = "of another text" if name == "text" else f"with {_as_given(name, was)}, not {_as_given(name, now)}"
            raise UserError(
                f"{folder} holds a study {what}", hint="give the same settings to continue it, or name another folder"
            )


def _as_given(name: str, value: object) -> str:
    if value is None or value == ():
        return f"no {name}"
    if name == "time" and isinstance(value, float):
        return f"{name}={spelled_seconds(value)}"
    if isinstance(value, tuple):
        items = cast("tuple[float | str, ...]", value)
        return f"{name}=" + ",".join(item if isinstance(item, str) else f"{item:.10g}" for item in items)
    return f"{name}={value:.10g}" if isinstance(value, float) else f"{name}={value}"
