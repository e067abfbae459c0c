"""The lab: what every phase of a study works with, for any executor of its runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace as with_fields

from sparsedial.machine.profile import Profile
from sparsedial.records.recipe import Dtype, OptimizerName, Recipe
from sparsedial.records.run import Metric, Run
from sparsedial.records.study import REPEAT_SEED
from sparsedial.records.text import TextSummary
from sparsedial.records.token_selection import StudyTokens
from sparsedial.runs.clock import Clock
from sparsedial.runs.executor import Executor, Group, Task
from sparsedial.runs.job import Job
from sparsedial.runs.policy import Follow, Listener, Shelf, carry_out
from sparsedial.shape.shape import Shape
from sparsedial.sweep.at_once import RunCost
from sparsedial.sweep.budgets import REPORT_SECONDS
from sparsedial.sweep.crossing import Crossing, KeptText
from sparsedial.sweep.layout import Layout, forward_seconds
from sparsedial.units import family_name, human_count

TEST_TOKENS = 1 << 20  # of the test split, evenly spread, that score a verdict run; all of it where it is smaller


def nobody() -> int:
    """The workers of other machines where none join."""
    return 0


class Archive(Shelf, Protocol):
    """Finds runs that ended, with their metrics and checkpoints."""

    def metrics(self, run_hash: str) -> Sequence[Metric]:
        """Some of a run's steps, in order."""
        ...

    def checkpoint(self, run_hash: str) -> Path:
        """The folder of a run's checkpoint."""
        ...


@dataclass(frozen=True, kw_only=True)
class Lab:
    """What is fixed for all phases, and the executor of their runs."""

    layout: Layout
    profile: Profile
    text: TextSummary
    archive: Archive
    executor: Executor
    listener: Listener
    clock: Clock
    workers: int  # of this machine
    threads: int  # per run
    kernels: str
    device: str
    dtype: Dtype
    evaluation_tokens: int  # of the validation split that score a cell
    seed: int  # of the grid; the other seeds are counted from it
    probe_tokens: int = 0  # of all that each run of the grid is asked; 0 without probes
    tokens: StudyTokens | None = None  # by which runs select their tokens; None: their loss counts all
    crossing: Crossing | None = None  # of the best models with shares of the text; None without a selection
    elsewhere: Callable[[], int] = nobody  # the number of workers of other machines that are there now

    @property
    def at_once(self) -> int:
        """Runs at once, with those on the other machines that are there now."""
        return self.workers + self.elsewhere()

    @property
    def optimizers(self) -> tuple[OptimizerName, ...]:
        """The grid's optimizer, and the others that a verdict's rivals may have."""
        return self.layout.optimizers

    @property
    def context(self) -> int:
        """Tokens of a training window."""
        return self.layout.ladder.context

    @property
    def keep_for_verdict_seconds(self) -> float:
        """Seconds at the end of the time that are reserved for the verdict, the kept shares and the report."""
        planned = self.layout.predicted_seconds
        return (planned.verdict if planned else 0.0) + self.keep_for_shares_seconds + REPORT_SECONDS

    @property
    def keep_for_shares_seconds(self) -> float:
        """Seconds after the verdict that are reserved for runs on shares of the text."""
        planned = self.layout.predicted_seconds
        return planned.kept_shares if planned else 0.0

    @property
    def verdict_tokens(self) -> int:
        """Tokens of the validation and the test split that score a verdict's run."""
        return sum(min(TEST_TOKENS, held) for held in (self.text.validation_tokens, self.text.test_tokens))

    def run_cost(self, step_seconds: float, steps: int, scored_tokens: int, beside: float = 0.0) -> RunCost:
        """Seconds to train one run and to score it, and those that it takes beside."""
        scoring = forward_seconds(self.layout, step_seconds, scored_tokens)
        return RunCost(step=step_seconds, training=steps * step_seconds, beside=scoring + beside)

    def shared_seconds(self, cost: RunCost) -> float:
        """What a run adds to the time of many on the study's workers."""
        return cost.shared(self.profile, self.at_once)

    def on(self, kept: KeptText) -> Lab:
        """The same lab for a share of the text."""
        share = kept.share
        text = with_fields(self.text, digest=share.text_digest, train_tokens=share.train_tokens)
        return replace(self, text=text, executor=kept.open(self.workers))

    def cell_seeds(self, repeats: int) -> tuple[int, ...]:
        """Seeds of a cell that is trained `repeats` times."""
        first = self.seed + REPEAT_SEED
        return self.seed, *range(first, first + repeats - 1)

    def job(
        self,
        shape: Shape,
        steps: int,
        batch: int,
        learning_rate: float,
        seed: int,
        optimizer: OptimizerName | None = None,
    ) -> Job:
        """The inputs of one run of this study, by the grid's optimizer or another one."""
        recipe = Recipe(
            learning_rate=learning_rate,
            steps=steps,
            batch=batch,
            context=self.context,
            seed=seed,
            dtype=self.dtype,
            optimizer=optimizer or self.optimizers[0],
        )
        return Job(
            shape=shape,
            recipe=recipe,
            text_digest=self.text.digest,
            tokenizer=self.text.tokenizer.digest,
            device=self.device,
            threads=self.threads,
            kernels=self.kernels,
            token_selection=self.tokens and self.tokens.selection,
        )

    def run(self, tasks: Iterable[Task], follow: Follow = lambda task, run: ()) -> dict[str, Run]:
        """Execute tasks on the study's workers in parallel; returns runs by hash."""
        return self._carry_out([(task,) for task in tasks], follow)

    def run_in_turn(self, group: Group) -> dict[str, Run]:
        """Execute a few timed tasks in turns of about a second, with nothing else running; returns runs by hash."""
        return self._carry_out([group])

    def _carry_out(self, groups: Iterable[Group], follow: Follow = lambda task, run: ()) -> dict[str, Run]:
        return carry_out(groups, executor=self.executor, shelf=self.archive, listener=self.listener, follow=follow)


def run_label(d_model: int, experts: int, size: str, what: str = "") -> str:
    """`dense, width 48, 2e+11 FLOPs, seed 1` or `32 experts, width 48, 1.2M tokens`, for lines of progress."""
    return f"{family_name(experts)}, width {d_model}, {size}{what}"


def token_words(tokens: int) -> str:
    """`1.2M tokens`."""
    return f"{human_count(tokens)} tokens"
