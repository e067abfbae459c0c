"""Training for the dial beside normal training and separate models: `python -m benchmarks.dial_training [FOLDER]`.

A model of 32 experts, top-8, on the built-in text. At equal FLOPs and with five seeds each: trained as it is, trained
for the dial 2,4,8 (by step and by layer, with an end at the highest number and at the lowest), and separate models of
top-2 and top-4. All have one learning rate and, by seed, the same first weights and the same order of windows. Each run
takes one thread, two run side by side; all take 45 minutes on two idle cores. Runs that are done are kept in the
folder, so the same command goes on after a stop. Words after the folder name another text. `--seeds N` stops at fewer
seeds. `--arms NAME …` trains these alone; the others keep their losses of the record, which must be of the same shape,
recipe, seeds and text. `--quick` trains a few steps with two seeds to see that all of it works, and writes its record
into the folder.

Writes benchmarks/records/dial_training.json: the loss of every arm at each number of experts, seed by seed; paired
differences with 95 % intervals; and the two aims: what the dial-trained model loses at half the experts over what the
normal one loses there, and how much worse it is with all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.keeping import keep
from benchmarks.trials import EVALUATION_TOKENS, Trials
from sparsedial.evaluation.loss import evaluate_text
from sparsedial.model.checkpoint import load
from sparsedial.records.recipe import Recipe
from sparsedial.records.record import plain
from sparsedial.records.run import Run
from sparsedial.records.trained_for import TrainedFor
from sparsedial.runs.executor import Task
from sparsedial.runs.job import Job
from sparsedial.shape.ladder import Ladder, sparse_twin
from sparsedial.sweep.verdict import mean_interval

RECORD = Path(__file__).parent / "records" / "dial_training.json"
NUMBERS = (2, 4, 8)
SHAPE = sparse_twin(Ladder(vocab_size=256, context=128).shape(64, 0), experts=32, top_k=8, shared_experts=0)
RECIPE = Recipe(learning_rate=0.008, steps=4000, batch=8, context=128)
SEEDS = range(201, 206)
NORMAL, STEP, LAYER = "normal", "dial by step", "dial by layer"
STEP_LOWEST, LAYER_LOWEST = f"{STEP}, ends on the lowest", f"{LAYER}, ends on the lowest"
Losses = Mapping[int, Sequence[Any]]  # nats per token by number of experts, seed by seed


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train: at a number of experts, or for the dial."""

    top_k: int = NUMBERS[-1]
    dial: TrainedFor | None = None

    @property
    def scored_at(self) -> tuple[int, ...]:
        """The numbers of experts that it is scored at: a separate model only has its own."""
        return NUMBERS if self.top_k == NUMBERS[-1] else (self.top_k,)


ARMS = {
    NORMAL: Arm(),
    STEP: Arm(dial=TrainedFor(top_k_experts=NUMBERS, by="step", end="highest")),
    LAYER: Arm(dial=TrainedFor(top_k_experts=NUMBERS, by="layer", end="highest")),
    STEP_LOWEST: Arm(dial=TrainedFor(top_k_experts=NUMBERS, by="step", end="lowest")),
    LAYER_LOWEST: Arm(dial=TrainedFor(top_k_experts=NUMBERS, by="layer", end="lowest")),
    **{f"separate, top-{number}": Arm(top_k=number) for number in NUMBERS[:-1]},
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is trained and scored."""

    steps: int = RECIPE.steps  # of the normal arm; the others have its FLOPs
    seeds: Sequence[int] = SEEDS
    tokens: int = EVALUATION_TOKENS


QUICK = Size(steps=20, seeds=(201, 202), tokens=2048)


def task_of(trials: Trials, name: str, seed: int, size: Size) -> Task:
    """The run of an arm with a seed: as many steps as the normal one's FLOPs pay for."""
    arm, recipe = ARMS[name], replace(RECIPE, steps=size.steps, seed=seed)
    normal = trials.task(SHAPE, recipe, NORMAL).job.flops

    def task(steps: int) -> Task:
        shape = replace(SHAPE, top_k=arm.top_k)
        return trials.task(shape, replace(recipe, steps=steps), f"{name}, seed {seed}", dial=arm.dial, keep=True)

    steps = int(size.steps * normal / task(size.steps).job.flops) + 1
    while task(steps).job.flops > normal:
        steps -= 1
    return task(steps)


def losses_of(trials: Trials, job: Job, run: Run, arm: Arm, size: Size) -> dict[int, float | None]:
    """A run's loss at each number of experts; None where it diverged."""
    if not run.finished:
        return dict.fromkeys(arm.scored_at)
    model = load(trials.store.checkpoint(job.hash))
    return {
        number: evaluate_text(
            model, trials.text, "validation", context=RECIPE.context, max_tokens=size.tokens, top_k=number
        ).loss
        for number in arm.scored_at
    }


def measure(trials: Trials, size: Size, known: Mapping[str, Losses] = MappingProxyType({})) -> dict[str, Any]:
    """Train what is not trained yet and compare. Arms in `known` are not trained, but have these losses."""
    tasks = {(name, seed): task_of(trials, name, seed, size) for seed in size.seeds for name in ARMS}
    asked = [key for key in tasks if key[0] not in known]
    runs = dict(zip(asked, trials.run([tasks[key] for key in asked]), strict=True))
    rows = {key: losses_of(trials, tasks[key].job, run, ARMS[key[0]], size) for key, run in runs.items()}
    lost = [f"{name}, seed {seed}" for (name, seed), row in rows.items() if None in row.values()]
    by_arm = {
        name: known[name]
        if name in known
        else {number: [rows[name, seed][number] for seed in size.seeds] for number in arm.scored_at}
        for name, arm in ARMS.items()
    }
    return {
        "shape": SHAPE.record(),
        "recipe": RECIPE,
        "seeds": list(size.seeds),
        "tokens": {name: tasks[name, size.seeds[0]].job.recipe.tokens for name in ARMS},
        "flops": {name: tasks[name, size.seeds[0]].job.flops for name in ARMS},
        "losses": {name: {str(number): values for number, values in found.items()} for name, found in by_arm.items()},
        "diverged": lost,
        "compared": None if lost else compared(by_arm),  # null where a run diverged
    }


def compared(losses: Mapping[str, Losses]) -> dict[str, Any]:
    """Paired differences, seed by seed, and the two aims, of each way to draw."""
    half, full = NUMBERS[-2:]
    alone = {
        **{number: losses[f"separate, top-{number}"][number] for number in NUMBERS[:-1]},
        full: losses[NORMAL][full],
    }
    lower = {str(number): paired(losses[NORMAL][number], alone[number]) for number in NUMBERS[:-1]}
    found: dict[str, Any] = {"normal_minus_separate": lower}
    for name in (STEP, LAYER, STEP_LOWEST, LAYER_LOWEST):
        dialled, normal = losses[name], losses[NORMAL]
        drops = [[one - other for one, other in zip(each[half], each[full], strict=True)] for each in (dialled, normal)]
        found[name] = {
            "minus_normal": {str(number): paired(dialled[number], normal[number]) for number in NUMBERS},
            "minus_separate": {str(number): paired(dialled[number], alone[number]) for number in NUMBERS},
            "lost_at_half": plain(mean_interval(drops[0])),
            "normal_lost_at_half": plain(mean_interval(drops[1])),
            "lost_at_half_over_normal": plain(mean_interval([one / other for one, other in zip(*drops, strict=True)])),
            "more_at_full": plain(
                mean_interval([one / other - 1 for one, other in zip(dialled[full], normal[full], strict=True)])
            ),
        }
    return found


def known_losses(record: Mapping[str, Any], size: Size, without: Sequence[str]) -> dict[str, Losses]:
    """The losses of a record, but those of some arms.

    Raises: SystemExit for a record of another shape, recipe or other seeds, or without an arm.
    """
    facts = {"shape": SHAPE.record(), "recipe": RECIPE, "seeds": list(size.seeds)}
    others = [name for name, fact in facts.items() if record.get(name) != plain(fact)]
    if others or record["diverged"]:
        raise SystemExit(f"the record has another {others[0]}" if others else "a run of the record diverged")
    found = {name: record["losses"].get(name) for name in ARMS if name not in without}
    missing = [name for name, losses in found.items() if losses is None]
    if missing:
        raise SystemExit(f"the record lacks {', '.join(missing)}")
    return {name: {int(number): values for number, values in losses.items()} for name, losses in found.items()}


def paired(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """First minus second, seed by seed: its mean and 95 % interval."""
    return plain(mean_interval([one - other for one, other in zip(first, second, strict=True)]))


def main(words: Sequence[str]) -> None:
    """Train, compare, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/dial_training"))
    parser.add_argument("texts", nargs="*")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), choices=range(2, len(SEEDS) + 1))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS))
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args(words)
    folder, quick = asked.folder, asked.quick
    size = QUICK if quick else Size(seeds=SEEDS[: asked.seeds])
    known = known_losses(json.loads(RECORD.read_text()), size, asked.arms) if asked.arms else {}
    found = measure(Trials(folder, text=asked.texts), size, known)
    keep(folder / "record.json" if quick else RECORD, "python -m benchmarks.dial_training", found)
    for name, by_number in found["losses"].items():
        print(name, by_number)
    for name, differences in (found["compared"] or {"not compared, diverged": found["diverged"]}).items():
        print(name, differences)


if __name__ == "__main__":
    main(sys.argv[1:])
