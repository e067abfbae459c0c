"""An executor that trains nothing: losses come from a known law plus noise, seconds from a known machine.

A whole study runs on it in a fraction of a second, so that the study's conclusions can be compared with the truth.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sparsedial.records.probes import ProbeScores
from sparsedial.records.quantities import Load
from sparsedial.records.recipe import OptimizerName, Recipe
from sparsedial.records.run import Metric, Run
from sparsedial.runs.executor import LOST_SHARE, Ended, Event, Group, Lost, Moved, Split, Task
from sparsedial.runs.queued import Queued
from sparsedial.shape.shape import Shape

CURVE_POINTS = 20
PEAK_BYTES = 400_000_000


@dataclass(frozen=True, kw_only=True)
class World:
    """The truth of a simulated study: its models and its machine."""

    loss: Callable[[Shape, int], float]  # of a shape and its tokens at the best rate; nats per token
    best_rate: Callable[[Shape, int], float]
    step_seconds: Callable[[Shape, Recipe], float]  # mean over a run, alone on the machine
    seed_noise: float = 0.005  # standard deviation of the loss between seeds, nats
    shared_noise: float = 0.0  # the same, of what runs of one seed share whatever their shape, length and text
    rate_penalty: float = 0.05  # nats for a rate that is off by a factor of e; grows with the square of the log
    diverges_above: float = 16.0  # times the best rate
    time_noise: float = 0.0  # standard deviation of the log of a run's seconds
    slowness: Callable[[float], float] = lambda seconds: 1.0  # factor on step times, by the study's seconds
    beside: float = 1.05  # factor on the times of runs that share the machine
    run_overhead_seconds: float = 0.15  # per run, for starting and for writing its record
    scoring_tokens: tuple[tuple[Split, int], ...] = ()  # per split; scoring a token costs a third of training on it
    lost_share: float = 0.0  # share of groups whose worker dies before they end
    test_offset: float = 0.1  # nats by which the test loss is above the validation loss
    probes: Callable[[Shape, float], ProbeScores] | None = None  # of a shape and its loss; None without probes
    probe_tokens: int = 0  # that a run reads which is scored on probes
    probe_seconds: float = 0.0  # of such a run, beside reading them
    gain: Callable[[Shape, OptimizerName], float] = lambda shape, optimizer: 0.0  # of an optimizer, nats
    rate_factor: Callable[[OptimizerName], float] = lambda optimizer: 1.0  # of an optimizer, on the best rate
    watts: Callable[[Shape], float] | None = None  # metered while a run is alone on the machine; None without a meter

    def expected_loss(self, shape: Shape, recipe: Recipe) -> float:
        """Mean loss of a run over seeds, on the validation split."""
        loss = self.loss(shape, recipe.tokens) - self.gain(shape, recipe.optimizer)
        return loss + self.rate_penalty * self._off_rate(shape, recipe) ** 2

    def diverges(self, shape: Shape, recipe: Recipe) -> bool:
        """Whether a run's learning rate is so high that it diverges."""
        return self._off_rate(shape, recipe) > math.log(self.diverges_above)

    def _off_rate(self, shape: Shape, recipe: Recipe) -> float:
        best = self.best_rate(shape, recipe.tokens) * self.rate_factor(recipe.optimizer)
        return math.log(recipe.learning_rate / best)


@dataclass(order=True)
class _Running:
    """A running group."""

    ends: float
    order: int
    group: Group = field(compare=False)
    runs: tuple[Run, ...] | None = field(compare=False)  # None where its worker dies


class Simulated(Queued):
    """Executes tasks in a World, in simulated time. It also stores the runs, like a folder of runs."""

    def __init__(self, world: World, *, workers: int = 2, seed: int = 0) -> None:
        super().__init__()
        self.world, self.workers, self.seed = world, workers, seed
        self.seconds = 0.0  # simulated seconds so far
        self.labels: list[str] = []  # of the executed tasks, in the order in which they started
        self._runs: dict[str, Run] = {}
        self._checkpoints: set[str] = set()
        self._running: list[_Running] = []
        self._order = itertools.count()
        self._random = np.random.default_rng(seed)

    def __enter__(self) -> Simulated:
        return self

    def __exit__(self, *reason: object) -> None:
        self._queue.clear()
        self._running.clear()

    def now(self) -> float:
        """Simulated seconds so far."""
        return self.seconds

    def wait(self) -> list[Event]:
        """The next group that ends; simulated time moves to its end."""
        while self._queue and len(self._running) < self.workers:
            self._begin(self._queue.popleft())
        if not self._running:
            return []
        ended = heapq.heappop(self._running)
        self.seconds = ended.ends
        if ended.runs is None:
            return [Lost(group=ended.group)]
        for task, run in zip(ended.group, ended.runs, strict=True):
            self._runs[task.job.hash] = run
            if task.keep_checkpoint:
                self._checkpoints.add(run.hash)
        moved = [
            Moved(
                task=task,
                step=run.steps_done - 1,
                loss=run.train_loss or math.inf,
                steps_per_second=run.steps_done / run.seconds,
            )
            for task, run in zip(ended.group, ended.runs, strict=True)
        ]
        return [*moved, Ended(group=ended.group, runs=ended.runs)]

    def _begin(self, group: Group) -> None:
        sharing = 1.0 if not (self._running or self._queue) else self.world.beside
        slowness = sharing * self.world.slowness(self.seconds)
        runs = tuple(self._run(task, slowness) for task in group)
        dies = bool(self._random.random() < self.world.lost_share)
        spent = sum(run.seconds + run.evaluation_seconds + self.world.run_overhead_seconds for run in runs)
        ends = self.seconds + (self._random.random() * spent if dies else spent)
        heapq.heappush(self._running, _Running(ends, next(self._order), group, None if dies else runs))
        self.labels += [task.label for task in group]

    def _run(self, task: Task, slowness: float) -> Run:
        job, recipe, world = task.job, task.job.recipe, self.world
        random = np.random.default_rng([self.seed, int(job.hash[:15], 16)])
        diverged = world.diverges(job.shape, recipe)
        done = min(recipe.steps, int(LOST_SHARE * recipe.steps) + 2) if diverged else recipe.steps
        loss = world.expected_loss(job.shape, recipe) + float(random.normal(0, world.seed_noise)) + self._shared(recipe)
        test_loss = loss + world.test_offset
        step = world.step_seconds(job.shape, recipe) * slowness
        step *= math.exp(float(random.normal(0, world.time_noise)))
        read = (self._scored(task) + task.probes * world.probe_tokens) / (recipe.batch * recipe.context)
        validated, tested = "validation" in task.splits and not diverged, "test" in task.splits and not diverged
        return Run(
            **job.inputs(),
            status="diverged" if diverged else "finished",
            reason="the rate is too high" if diverged else None,
            steps_done=done,
            train_loss=None if diverged else loss,
            validation_loss=loss if validated else None,
            validation_bits_per_byte=loss / math.log(2) if validated else None,
            test_loss=test_loss if tested else None,
            test_bits_per_byte=test_loss / math.log(2) if tested else None,
            seconds=done * step,
            median_step_seconds=step,
            evaluation_seconds=0.0 if diverged else read * step / 3 + task.probes * slowness * world.probe_seconds,
            joules=done * step * world.watts(job.shape) if world.watts and task.alone else None,
            joules_source="simulated",
            peak_memory_bytes=PEAK_BYTES,
            expert_load=_load(job.shape, random),
            repeats=1.0,
            alone=task.alone,
            machine_busy=None,
            trunk_steps_shared=0,
            events=(),
            probes=None if diverged or not task.probes or world.probes is None else world.probes(job.shape, loss),
        )

    def _shared(self, recipe: Recipe) -> float:
        """What the seed alone does to a loss."""
        return float(np.random.default_rng([self.seed, recipe.seed]).normal(0, self.world.shared_noise))

    def _scored(self, task: Task) -> int:
        held = dict(self.world.scoring_tokens)
        return sum(min(task.evaluation_tokens or held.get(split, 0), held.get(split, 0)) for split in task.splits)

    def find(self, run_hash: str) -> Run | None:
        """The run that ended with this hash, or None."""
        return self._runs.get(run_hash)

    def has_checkpoint(self, run_hash: str) -> bool:
        """Whether a run's checkpoint would have been kept."""
        return run_hash in self._checkpoints

    def checkpoint(self, run_hash: str) -> Path:
        """The path that the checkpoint would have."""
        return Path("simulated") / run_hash[:16] / "checkpoint"

    def metrics(self, run_hash: str) -> list[Metric]:
        """A curve that falls to the run's loss."""
        run = self._runs[run_hash]
        end = run.train_loss or 0.0
        points = np.linspace(1, run.steps_done, CURVE_POINTS).astype(int)
        return [
            Metric(
                index=int(step) - 1,
                loss=end + math.exp(-5 * step / run.steps_done),
                gradient_norm=None,
                learning_rate=run.recipe.rate(int(step) - 1),
                seconds=run.median_step_seconds or 0.0,
                tokens=run.recipe.batch * run.recipe.context,
                max_over_mean=None,
                dead_experts=None,
                entropy=None,
                bias_drift=None,
            )
            for step in points
        ]


def _load(shape: Shape, random: np.random.Generator) -> Load | None:
    if not shape.experts:
        return None
    return Load(max_over_mean=1.1 + float(random.exponential(0.2)), dead_experts=0, entropy=0.99)
