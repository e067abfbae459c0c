"""What processes of a group do in tests/training/test_ranks.py: cases of training, states that are saved and loaded."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.model.transformer import initialise
from sparsedial.records.recipe import Recipe
from sparsedial.records.record import plain
from sparsedial.records.state import Progress
from sparsedial.records.trained_for import TrainedFor
from sparsedial.shape.ladder import Ladder
from sparsedial.text.prepare import open_text
from sparsedial.training import exchange, loop, messages
from sparsedial.training.loop import train_readings
from sparsedial.training.optimizer import hold_zeros, make_optimizers
from sparsedial.training.ranks import ALONE, Alone, Ranks
from sparsedial.training.resume import load_state, restore_state, save_state, training_state
from sparsedial.training.step import Rates, TrainingStep
from tests.training.steps import state_on_device, train_steps

RECIPE = Recipe(learning_rate=0.01, steps=12, batch=6, context=32, clip=0.7, warmup_share=0.5)
MUON = replace(RECIPE, optimizer="muon")
SPARSE = Ladder(vocab_size=256, context=32).shape(12, 8)
DENSE = Ladder(vocab_size=256, context=32).shape(12, 0)
BROKEN_STEP = 4
SAVED = 6  # steps before the state is saved
CASES = {
    "sparse": (SPARSE, RECIPE),
    "multi-token prediction": (replace(SPARSE, mtp_layers=1), replace(RECIPE, mtp_weight=0.0, mtp_late_weight=0.3)),
    "muon": (SPARSE, MUON),
    "dense": (replace(DENSE, tied_embeddings=not DENSE.tied_embeddings), RECIPE),
    "bfloat16": (SPARSE, replace(RECIPE, dtype="bfloat16")),
    "zeros": (SPARSE, RECIPE),
    "dial": (SPARSE, RECIPE),
    "broken": (SPARSE, RECIPE),
}
DIAL = TrainedFor(top_k_experts=(1, 2), by="step")
ON_DEVICE = (  # optimizer, type, and whether AdamW writes the working copies itself
    ("adamw", "float32", False),
    ("adamw", "bfloat16", True),
    ("muon", "bfloat16", True),
)
COSTS = (  # a case, and the bytes of a message at most
    ("sparse", 2**25),
    ("sparse", 2**12),
    ("multi-token prediction", 2**25),
    ("muon", 2**25),
    ("bfloat16", 2**13),
)
OF_THREE = ("sparse", "muon")
KEY = "the run"


def progress(steps: int) -> Progress:
    return Progress(
        next_step=steps,
        seconds=1.0,
        joules=0.0,
        step_seconds=(),
        losses=(),
        metrics=(),
        skipped=(),
        events=(),
        shared=0,
    )


def begun(case: str, ranks: Alone | Ranks) -> tuple[Any, Any, Recipe]:
    shape, recipe = CASES[case]
    model = initialise(shape, 0)
    optimizers = make_optimizers(model, recipe, ranks)
    if case == "zeros":
        with torch.no_grad():
            for parameter in model.blocks.parameters():
                parameter.mul_(torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)) > 0.5)
        hold_zeros(model, optimizers)
    return model, optimizers, recipe


def trained(case: str, text_folder: Path, ranks: Alone | Ranks, start: Path | None = None) -> dict[str, Any]:
    """What a case's steps say and what they leave, from a saved state on; in the broken one the last rank's gradient
    is once no number.
    """
    model, optimizers, recipe = begun(case, ranks)
    if case == "broken" and ranks.index == ranks.count - 1:
        calls: list[int] = []

        def spoil(gradient: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return gradient * float("nan") if len(calls) > BROKEN_STEP else gradient

        model.norm_D.register_hook(spoil)
    steps, sums, rows, learn = [], [], set(), model.loss

    def noted(ids_BS1: torch.Tensor, *weights: float) -> tuple[torch.Tensor, torch.Tensor]:
        rows.add(len(ids_BS1))
        return learn(ids_BS1, *weights)

    model.loss = noted
    if start is not None:
        assert load_state(start, KEY, model, optimizers) == progress(SAVED)
    loaded = {name: tensor.clone() for name, tensor in training_state(model, optimizers).items()}
    first, dial = 0 if start is None else SAVED, DIAL if case == "dial" else None
    for step in train_steps(model, optimizers, open_text(text_folder), recipe, first, ranks=ranks, dial=dial):
        steps.append(step)
        sums.append(float(sum(tensor.double().sum() for tensor in model.state_dict().values())))
    return {
        "loss": [step.loss for step in steps],
        "norm": [step.gradient_norm for step in steps],
        "balance": [plain(step.balance) for step in steps],
        "tokens": steps[0].tokens,
        "rows": rows,
        "sums": sums,  # of all weights and biases after each step
        "weights": model.state_dict(),
        "state": training_state(model, optimizers),
        "loaded": loaded,
    }


def saved(case: str, text_folder: Path, home: Path, ranks: Alone | Ranks) -> dict[str, torch.Tensor]:
    """Train and save; returns this rank's state."""
    model, optimizers, recipe = begun(case, ranks)
    steps = train_steps(model, optimizers, open_text(text_folder), recipe, ranks=ranks)
    for _ in range(SAVED):
        next(steps)
    save_state(home, KEY, model, optimizers, progress(SAVED), ranks)
    return training_state(model, optimizers)


def saved_again(case: str, start: Path, home: Path, ranks: Alone | Ranks) -> None:
    """Load a state and save it."""
    model, optimizers, _ = begun(case, ranks)
    load_state(start, KEY, model, optimizers)
    save_state(home, KEY, model, optimizers, progress(SAVED), ranks)


def gone_back(text_folder: Path, ranks: Alone | Ranks) -> bool:
    """Whether each rank's own state brings it back: the steps after it are the same again."""
    model, optimizers, recipe = begun("muon", ranks)

    def go(start: int, last: int) -> list[float]:
        steps = train_steps(model, optimizers, open_text(text_folder), recipe, start, ranks=ranks)
        return [next(steps).gradient_norm for _ in range(start, last)]

    go(0, 3)
    state = {name: tensor.clone() for name, tensor in training_state(model, optimizers).items()}
    once = go(3, 6)
    restore_state(model, optimizers, state)
    return go(3, 6) == once


def readings(text_folder: Path, ranks: Ranks) -> list[int]:
    """The steps between readings, as on a GPU; the second rank's clock is slow, and the first's stands still."""
    model, optimizers, recipe = begun("sparse", ranks)
    clock = itertools.count(step=100 * ranks.index)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.time, "perf_counter", lambda: next(clock))
        given = model, optimizers, open_text(text_folder), recipe
        return [len(steps) for steps in train_readings(*given, ranks=ranks, replay=True)]


def refused(folder: Path, ranks: Alone | Ranks) -> str:
    """What a rank says of a folder that cannot be made."""
    model, optimizers, _ = begun("dense", ranks)
    try:
        save_state(folder / "a file" / "home", KEY, model, optimizers, progress(SAVED), ranks)
    except UserError as error:
        return f"{error} {error.hint}"
    return "nothing"


def another_state(folder: Path, ranks: Ranks) -> str:
    """What a rank says of a state that the first alone finds."""
    model, optimizers, _ = begun("sparse", ranks)
    try:
        load_state(folder / ("nothing" if ranks.index else "sparse"), KEY, model, optimizers, ranks=ranks)
    except UserError as error:
        return str(error.hint)
    return "nothing"


def others_weights(ranks: Ranks) -> str:
    """What a step says of optimizers that hold all weights."""
    model, optimizers, recipe = begun("dense", ALONE)
    try:
        TrainingStep(model, optimizers, recipe, ranks)
    except ValueError as error:
        return str(error)
    return "nothing"


def two(ranks: Ranks, folder: Path, text_folder: Path) -> dict[str, Any]:
    """What each of two ranks finds."""
    index = ranks.index
    numbers = torch.arange(12.0) ** (1 + index)
    costs = {case: held_and_sent(*case, ranks) for case in COSTS}
    found: dict[str, Any] = {case: trained(case, text_folder, ranks) for case in CASES}
    messages.MESSAGE_BYTES["cpu"] = 2**12
    found["small messages"] = trained("sparse", text_folder, ranks)
    found["saved"] = {case: saved(case, text_folder, folder / case, ranks) for case in OF_THREE}
    return found | {
        "costs": costs,
        "on device": {case: state_on_device(*case[:2], ranks, case[2]) for case in ON_DEVICE},
        "broken on device": {case: state_on_device(*case[:2], ranks, case[2], broken=True) for case in ON_DEVICE},
        "another state": another_state(folder, ranks),
        "others' weights": others_weights(ranks),
        "readings": readings(text_folder, ranks),
        "gone back": gone_back(text_folder, ranks),
        "refused": refused(folder, ranks),
        "agreed": [
            ranks.agree(1.0 + index, 4.0 - index),
            ranks.agree(2.0, math.inf if index else 1.0),
        ],
        "both ways": [both_ways(numbers, kind) for kind in (ranks, Ranks(ranks.group, "cuda"))],
        "first": ranks.first(5.0 + index),
    }


def three(ranks: Ranks, folder: Path, text_folder: Path) -> dict[str, Any]:
    """What each of three ranks finds: of the cases, and of the state that two saved."""
    for case in OF_THREE:
        saved_again(case, folder / case, folder / f"{case} again", ranks)
    return {case: trained(case, text_folder, ranks) for case in OF_THREE} | {
        f"resumed {case}": trained(case, text_folder, ranks, folder / case) for case in OF_THREE
    }


def both_ways(numbers: torch.Tensor, ranks: Ranks) -> tuple[torch.Tensor, torch.Tensor]:
    """This rank's half of the sum of all ranks' numbers, and the halves of all; on a CPU its own do not cross."""
    halves, row = numbers.view(2, -1), ranks.index
    arrived = ranks.reduce_scatter(halves[ranks.partners]).arrived()
    total = arrived.sum(0) if row in ranks.partners else halves[row] + arrived.sum(0)
    gathered = torch.empty_like(halves)
    gathered[row] = total
    gathered[ranks.partners] = ranks.all_gather(total).arrived()
    return total, gathered


def held_and_sent(case: str, message_bytes: int, ranks: Ranks) -> tuple[dict[str, Any], list[bool]]:
    """The bytes of the tensors that a rank really holds, and of the messages that it really takes part in; and of each
    message whether it began before the embedding had its gradient.
    """
    model, optimizers, recipe = begun(case, ranks)
    sent, under_way, most, gradients, early = Counter[str](), [0], [0], [0], list[bool]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(messages.MESSAGE_BYTES, "cpu", message_bytes)

        def counting(collective: str, name: str) -> None:
            act = getattr(Ranks, name)

            def counted(self: Ranks, given: torch.Tensor) -> exchange.UnderWay:
                begun = act(self, given)
                sent[collective] += begun.received.nbytes * ranks.count // (ranks.count - 1)
                under_way.append(begun.sent.nbytes + begun.received.nbytes)
                most.append(sum(under_way))
                return begun

            patch.setattr(Ranks, name, counted)

        counting("all_to_all", "reduce_scatter")
        counting("all_gather", "all_gather")
        arrived, reduce = exchange.UnderWay.arrived, torch.distributed.all_reduce

        def waited(self: exchange.UnderWay) -> torch.Tensor:
            under_way.remove(self.sent.nbytes + self.received.nbytes)
            return arrived(self)

        def reduced(tensor: torch.Tensor, **given: Any) -> None:
            sent["all_reduce"] += tensor.nbytes
            reduce(tensor, **given)

        patch.setattr(exchange.UnderWay, "arrived", waited)
        patch.setattr(torch.distributed, "all_reduce", reduced)

        def held(one: exchange.Exchange) -> int:
            takers = [one._taker(tensor) for _, tensor in one._own.values()]
            return sum(holder.grad.nbytes for holder in {*one._working.holders, *takers} if holder.grad is not None)

        def watching(name: str) -> None:
            act = getattr(exchange.Exchange, name)

            def watched(self: exchange.Exchange, *given: Any) -> None:
                gradients.append(held(self))
                if name == "_begin":
                    early.append(self._working.holders[0].grad is None)
                act(self, *given)

            patch.setattr(exchange.Exchange, name, watched)

        watching("_begin")
        watching("_drop")
        step = TrainingStep(model, optimizers, recipe, ranks)
        ids_BS1 = torch.randint(256, (3, 33), generator=torch.Generator().manual_seed(ranks.index))
        step.take(ids_BS1, Rates(0.01, 0.001, 0.3))
    working = step._working.model
    moments = [tensor for optimizer in optimizers for state in optimizer.state.values() for tensor in state.values()]
    costs = {
        "parameters": sum(p.numel() for optimizer in optimizers for g in optimizer.param_groups for p in g["params"]),
        "weights": sum(one.nbytes for one in {*model.parameters(), *working.parameters()}),
        "gradients": max(gradients),
        "optimizer": sum(tensor.nbytes for tensor in moments),
        "buffers": sum(one.nbytes for one in {*model.buffers(), *working.buffers()}) + max(most),
        **sent,
    }
    return costs, early
