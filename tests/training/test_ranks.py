"""Two processes with half of each batch train as one does with all of it."""

from __future__ import annotations

import math
import multiprocessing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from sparsedial.model.transformer import initialise
from sparsedial.records.recipe import Recipe
from sparsedial.records.record import plain
from sparsedial.shape.ladder import Ladder
from sparsedial.text.prepare import open_text
from sparsedial.training.optimizer import make_optimizers
from sparsedial.training.ranks import ALONE, Alone, Ranks
from tests.training.steps import train_steps

RECIPE = Recipe(learning_rate=0.01, steps=12, batch=8, context=32, clip=0.7, warmup_share=0.5)
SPARSE = Ladder(vocab_size=256, context=32).shape(12, 8)
DENSE = Ladder(vocab_size=256, context=32).shape(12, 0)
BROKEN_STEP = 4
CASES = {
    "sparse": (SPARSE, RECIPE),
    "multi-token prediction": (replace(SPARSE, mtp_layers=1), RECIPE),
    "muon": (SPARSE, replace(RECIPE, optimizer="muon")),
    "dense": (DENSE, RECIPE),
    "broken": (SPARSE, RECIPE),
}


def trained(case: str, text_folder: Path, ranks: Alone | Ranks) -> dict[str, Any]:
    """What a case's steps say and what they leave; in the broken one the last rank's gradient is once no number."""
    shape, recipe = CASES[case]
    model = initialise(shape, 0)
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
    for step in train_steps(model, make_optimizers(model, recipe), open_text(text_folder), recipe, ranks=ranks):
        steps.append(step)
        sums.append(float(sum(tensor.double().sum() for tensor in model.state_dict().values())))
    return {
        "loss": [step.loss for step in steps],
        "norm": [step.gradient_norm for step in steps],
        "balance": [plain(step.balance) for step in steps],
        "tokens": steps[0].tokens,
        "rows": rows,
        "sums": sums,  # of all weights and biases after each step
        "state": model.state_dict(),
    }


def work(rank: int, folder: Path, text_folder: Path) -> None:
    """One of the two processes."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    group = distributed.group.WORLD
    assert group is not None
    ranks = Ranks(group)
    results = {case: trained(case, text_folder, ranks) for case in CASES}
    agreed = [ranks.agree(1.0 + rank, 4.0 - 2 * rank), ranks.agree(2.0, math.inf if rank else 1.0)]
    torch.save({**results, "agreed": agreed}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def halves(small_text, tmp_path_factory) -> list[dict[str, Any]]:
    """What each of two ranks says of every case."""
    folder = tmp_path_factory.mktemp("ranks")
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=work, args=(rank, folder, small_text.folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", [case for case in CASES if case != "broken"])
def test_two_ranks_train_as_one_does_up_to_rounding(small_text, halves, case):
    """Losses, norms, the balance of the experts, weights and the routing bias, with clipping at most steps."""
    whole, half = trained(case, small_text.folder, ALONE), halves[0][case]
    assert sum(norm > RECIPE.clip for norm in whole["norm"]) > 6
    assert (half["rows"], whole["rows"]) == ({4}, {8})
    assert half["tokens"] == whole["tokens"] == 8 * 32
    assert half["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert half["norm"] == pytest.approx(whole["norm"], rel=1e-5)
    for one, other in zip(half["balance"], whole["balance"], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one["load"] == pytest.approx(other["load"], rel=1e-6, abs=1e-6)
            assert one["bias_drift"] == pytest.approx(other["bias_drift"], rel=1e-6, abs=1e-6)
    for name, tensor in whole["state"].items():
        torch.testing.assert_close(half["state"][name], tensor, atol=1e-5, rtol=1e-5, msg=lambda t, n=name: f"{n}: {t}")


@pytest.mark.parametrize("case", CASES)
def test_all_ranks_hold_the_same_weights_and_figures_bit_for_bit(halves, case):
    first, second = (half[case] for half in halves)
    assert str(first["loss"]) == str(second["loss"])  # NaN is not equal to itself
    assert str(first["norm"]) == str(second["norm"])
    assert first["balance"] == second["balance"]
    for name, tensor in first["state"].items():
        assert torch.equal(tensor, second["state"][name]), name


def test_no_rank_takes_a_step_whose_gradient_is_no_number_on_one_of_them(halves):
    """Both end there, with the weights of the step before."""
    before = halves[0]["sparse"]
    for half in halves:
        assert len(half["broken"]["loss"]) == BROKEN_STEP + 1
        assert half["broken"]["loss"] == before["loss"][: BROKEN_STEP + 1]
        assert str(half["broken"]["norm"][-1]) == "nan"
        assert half["broken"]["sums"][-1] == half["broken"]["sums"][-2]
    assert len(set(before["sums"])) == RECIPE.steps


def test_ranks_agree_on_loss_and_norm_however_their_own_differ(halves):
    assert halves[0]["agreed"] == halves[1]["agreed"] == [(1.5, 3.0), (2.0, math.inf)]
    assert ALONE.agree(1.0, 4.0) == (1.0, 4.0)
