"""Two processes that share the optimizer's work, beside one process and PyTorch's: `python -m benchmarks.ranks`.

The same model, batch and kernels everywhere, in turns in one run:

* one process with two threads;
* two ranks with a thread each, as `train` has them: each moves the weights that it owns;
* PyTorch's DistributedDataParallel with our optimizers whole on each rank;
* the same with PyTorch's ZeroRedundancyOptimizer around our AdamW (it divides no weight, and no Muon).

Two processes on one machine share its cores and memory: their messages cross no network. What this says is what the
division costs or saves on such a machine, and nothing about several machines or GPUs. Writes
benchmarks/records/ranks.json in some 3 minutes on two idle cores.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from benchmarks.keeping import keep
from benchmarks.side_by_side import Apart, range_words, ratio
from sparsedial.kernels import native
from sparsedial.machine.hardware import BusyWatch
from sparsedial.machine.timing import measure_in_turn
from sparsedial.model.transformer import Transformer, initialise
from sparsedial.records.recipe import OptimizerName, Recipe
from sparsedial.records.record import plain
from sparsedial.runs.job import Job
from sparsedial.runs.ranks.costs import rank_costs
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape
from sparsedial.training.adamw import CompiledAdamW
from sparsedial.training.memory import settle_memory
from sparsedial.training.optimizer import clip_gradient, gradient_norm, make_optimizers, set_rate
from sparsedial.training.ranks import ALONE, Ranks
from sparsedial.training.step import Rates, TrainingStep

RECORD = Path(__file__).parent / "records" / "ranks.json"
SHAPE = Ladder(vocab_size=2048, context=128).shape(192, 16)
RECIPE = Recipe(learning_rate=1e-3, steps=100, batch=8, context=128)
ROUNDS, ROUND_SECONDS, COUNT = 5, 3.0, 2
ONE, SHARED, REPLICATED, ZERO = (
    "one process",
    "ours, shared",
    "DistributedDataParallel",
    "ZeroRedundancyOptimizer",
)
PEERS: dict[OptimizerName, tuple[str, ...]] = {"adamw": (REPLICATED, ZERO), "muon": (REPLICATED,)}


class Pair:
    """A step of several processes; a call waits for all."""

    def __init__(self, ranks: list[Apart]) -> None:
        self.ranks = ranks

    def __call__(self) -> None:
        for rank in self.ranks:
            rank.begin()
        for rank in self.ranks:
            rank.finish()


def main() -> None:
    """Take turns and write the record."""
    busy, found = BusyWatch(), {}
    for optimizer in PEERS:
        found[optimizer] = _compare(replace(RECIPE, optimizer=optimizer))
    what = f"{SHAPE.layers} layers of width {SHAPE.d_model}, {SHAPE.experts} experts, {RECIPE.batch} x {RECIPE.context}"
    record = {
        "what": f"{what} tokens a step; {COUNT} ranks of one machine with a thread each, one process with {COUNT}",
        "says_nothing_of": "networks, several machines, GPUs",
        "total_parameters": total_parameters(SHAPE),
        "machine_busy": busy.share(),
        "optimizers": found,
    }
    keep(RECORD, "python -m benchmarks.ranks", record)


def _compare(recipe: Recipe) -> dict[str, Any]:
    """One optimizer: timings, peak memory of the ranks, and what a dry run counts."""
    names = (SHARED, *PEERS[recipe.optimizer])
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        candidates = {ONE: Pair([stack.enter_context(Apart(partial(_alone, SHAPE, recipe), COUNT))])}
        for name in names:
            meeting = f"file://{folder}/{name}"
            makes = [partial(_ranked, name, SHAPE, recipe, meeting, rank) for rank in range(COUNT)]
            candidates[name] = Pair([stack.enter_context(Apart(make, 1)) for make in makes])
        timings = measure_in_turn(candidates, rounds=ROUNDS, round_seconds=ROUND_SECONDS)
        peaks = {name: [rank.peak_bytes() for rank in pair.ranks] for name, pair in candidates.items()}
    ratios = {name: ratio(timings, SHARED, name) for name in candidates if name != SHARED}
    for name, timing in timings.items():
        times = f"ours is {range_words(ratios[name])} times as fast" if name in ratios else ""
        print(f"{recipe.optimizer:<7}{name:<26}{1e3 * timing.median_seconds:8.1f} ms", peaks[name], times, flush=True)
    job = Job(shape=SHAPE, recipe=recipe, text_digest="", tokenizer="", kernels=native.kind("cpu"))
    return {
        "step_seconds": {name: timing.record() for name, timing in timings.items()},
        "peak_bytes_of_each_process": peaks,
        "shared_is_times_as_fast_as": ratios,
        "counted": [plain(costs) for costs in rank_costs(job, COUNT)],
    }


def _alone(shape: Shape, recipe: Recipe) -> Callable[[], float]:
    settle_memory()
    model = initialise(shape, 0)
    step = TrainingStep(model, make_optimizers(model, recipe), recipe)
    return partial(_take, step, _ids(shape, recipe, slice(None)), recipe)


def _ranked(name: str, shape: Shape, recipe: Recipe, meeting: str, rank: int) -> Callable[[], float]:
    """A rank's step by one of the ways."""
    settle_memory()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=COUNT, timeout=timedelta(seconds=120)
    )
    group = distributed.group.WORLD
    assert group is not None
    ranks, model = Ranks(group), initialise(shape, 0)
    share = recipe.batch // COUNT
    ids_BS1 = _ids(shape, recipe, slice(rank * share, (rank + 1) * share))
    if name == SHARED:
        step = TrainingStep(model, make_optimizers(model, recipe, ranks), recipe, ranks)
        return partial(_take, step, ids_BS1, recipe)
    return _peer(model, recipe, ranks, ids_BS1, zero=name == ZERO)


def _ids(shape: Shape, recipe: Recipe, rows: slice) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(shape.vocab_size, (recipe.batch, recipe.context + 1), generator=generator)[rows]


def _take(step: TrainingStep, ids_BS1: Tensor, recipe: Recipe) -> float:
    return float(step.take(ids_BS1, Rates(recipe.learning_rate, recipe.balance_rate, 0.0)).loss)


class Loss(nn.Module):
    """The model's training loss, as DistributedDataParallel takes it."""

    def __init__(self, model: Transformer, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe

    def forward(self, ids_BS1: Tensor) -> tuple[Tensor, Tensor]:
        """The loss that is trained on, and the cross-entropy."""
        return self.model.loss(ids_BS1, self.recipe.balance_weight, self.recipe.z_loss_weight, 0.0, None, None, None)


def _peer(model: Transformer, recipe: Recipe, ranks: Ranks, ids_BS1: Tensor, zero: bool) -> Callable[[], float]:
    """PyTorch averages the gradients while the backward pass goes on; all else is as in ours."""
    learner = nn.parallel.DistributedDataParallel(
        Loss(model, recipe), broadcast_buffers=False, gradient_as_bucket_view=True
    )
    optimizers = make_optimizers(model, recipe, ALONE)
    if zero:
        from torch.distributed.optim import ZeroRedundancyOptimizer

        groups = [dict(group) for group in optimizers[0].param_groups]
        optimizers = [ZeroRedundancyOptimizer(groups, optimizer_class=CompiledAdamW, recipe=recipe)]
    routed = model.sparse_feed_forwards
    parameters = list(model.parameters())

    def step() -> float:
        learner.zero_grad(set_to_none=True)
        total, entropy = learner(ids_BS1)
        total.backward()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        clip_gradient(gradients, gradient_norm(gradients), recipe.clip)
        set_rate(optimizers, recipe.learning_rate)
        for optimizer in optimizers:
            optimizer.step()
        ranks.add_up([layer.load_E for layer in routed])
        for layer in routed:
            layer.balance(recipe.balance_rate)
        figures = torch.stack([entropy.detach().double()])
        ranks.add_up([figures])
        return float(figures) / ranks.count

    return step


if __name__ == "__main__":
    main()
