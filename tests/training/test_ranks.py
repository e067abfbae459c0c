"""Two and three processes with equal shares of each batch train as one does with all of it, and share its moments."""

from __future__ import annotations

import hashlib
import math
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
from sparsedial.shape.ladder import Ladder
from sparsedial.text.prepare import open_text
from sparsedial.training import exchange
from sparsedial.training.optimizer import hold_zeros, make_optimizers
from sparsedial.training.owners import owners
from sparsedial.training.ranks import ALONE, Alone, Ranks
from sparsedial.training.resume import load_state, restore_state, save_state, training_state
from sparsedial.training.step import TrainingStep
from tests.training.on_ranks import on_ranks
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
    "broken": (SPARSE, RECIPE),
}
ON_DEVICE = (  # optimizer, type, and whether AdamW writes the working copies itself
    ("adamw", "float32", False),
    ("adamw", "bfloat16", True),
    ("muon", "bfloat16", True),
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
    first = 0 if start is None else SAVED
    for step in train_steps(model, optimizers, open_text(text_folder), recipe, first, ranks=ranks):
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


def refused(folder: Path, ranks: Alone | Ranks) -> str:
    """What a rank says of a folder that cannot be made."""
    model, optimizers, _ = begun("dense", ranks)
    with pytest.raises(UserError) as caught:
        save_state(folder / "a file" / "home", KEY, model, optimizers, progress(SAVED), ranks)
    return f"{caught.value} {caught.value.hint}"


def others_weights(ranks: Ranks) -> str:
    """What a step says of optimizers that hold all weights."""
    model, optimizers, recipe = begun("dense", ALONE)
    with pytest.raises(ValueError, match="do not hold what rank") as caught:
        TrainingStep(model, optimizers, recipe, ranks)
    return str(caught.value)


def two(ranks: Ranks, folder: Path, text_folder: Path) -> dict[str, Any]:
    """What each of two ranks finds."""
    index = ranks.index
    found: dict[str, Any] = {case: trained(case, text_folder, ranks) for case in CASES}
    exchange.MESSAGE_BYTES = 2**12
    found["small messages"] = trained("sparse", text_folder, ranks)
    found["saved"] = {case: saved(case, text_folder, folder / case, ranks) for case in OF_THREE}
    return found | {
        "on device": {case: state_on_device(*case[:2], ranks, case[2]) for case in ON_DEVICE},
        "broken on device": {case: state_on_device(*case[:2], ranks, case[2], broken=True) for case in ON_DEVICE},
        "others' weights": others_weights(ranks),
        "gone back": gone_back(text_folder, ranks),
        "refused": refused(folder, ranks),
        "agreed": [
            ranks.agree(1.0 + index, 4.0 - index),
            ranks.agree(2.0, math.inf if index else 1.0),
        ],
        "first": ranks.first(5.0 + index),
    }


def three(ranks: Ranks, folder: Path, text_folder: Path) -> dict[str, Any]:
    """What each of three ranks finds: of the cases, and of the state that two saved."""
    for case in OF_THREE:
        saved_again(case, folder / case, folder / f"{case} again", ranks)
    return {case: trained(case, text_folder, ranks) for case in OF_THREE} | {
        f"resumed {case}": trained(case, text_folder, ranks, folder / case) for case in OF_THREE
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("ranks")
    (made / "a file").write_text("")
    return made


@pytest.fixture(scope="module")
def halves(small_text, folder) -> list[dict[str, Any]]:
    return on_ranks(2, folder, two, folder, small_text.folder)


@pytest.fixture(scope="module")
def thirds(small_text, folder, halves) -> list[dict[str, Any]]:
    return on_ranks(3, folder, three, folder, small_text.folder)


def assert_alike(half: dict[str, Any], whole: dict[str, Any], tolerance: float = 1e-6) -> None:
    """Losses, norms, the balance of the experts, weights and the routing bias."""
    assert half["tokens"] == whole["tokens"] == 6 * 32
    assert half["loss"] == pytest.approx(whole["loss"], rel=tolerance)
    assert half["norm"] == pytest.approx(whole["norm"], rel=10 * tolerance)
    for one, other in zip(half["balance"], whole["balance"], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one["load"] == pytest.approx(other["load"], rel=tolerance, abs=tolerance)
            assert one["bias_drift"] == pytest.approx(other["bias_drift"], rel=tolerance, abs=tolerance)
    assert half["weights"].keys() == whole["weights"].keys()
    for name, tensor in whole["weights"].items():
        torch.testing.assert_close(
            half["weights"][name], tensor, atol=10 * tolerance, rtol=10 * tolerance, msg=lambda t, n=name: f"{n}: {t}"
        )


EXACT = [case for case in CASES if case not in ("broken", "bfloat16")]


@pytest.mark.parametrize("case", EXACT)
def test_two_ranks_train_as_one_does_up_to_rounding(small_text, halves, case):
    """With clipping at most steps."""
    whole, half = trained(case, small_text.folder, ALONE), halves[0][case]
    assert sum(norm > RECIPE.clip for norm in whole["norm"]) > 6
    assert (half["rows"], whole["rows"]) == ({3}, {6})
    assert_alike(half, whole)


@pytest.mark.parametrize("case", OF_THREE)
def test_three_ranks_train_as_two_do_up_to_rounding(halves, thirds, case):
    assert thirds[0][case]["rows"] == {2}
    assert_alike(thirds[0][case], halves[0][case])


def test_ranks_learn_in_bfloat16_as_one_does(small_text, halves):
    """Products differ by its rounding, of which a step of AdamW can make as much as the rate."""
    whole, half = trained("bfloat16", small_text.folder, ALONE), halves[0]["bfloat16"]
    assert half["loss"] == pytest.approx(whole["loss"], rel=0.01)
    assert half["loss"][-1] < half["loss"][0] - 0.5


def every(halves, thirds) -> list[tuple[str, list[dict[str, Any]]]]:
    cases = [*CASES, "small messages"]
    of_two = [(case, [half[case] for half in halves]) for case in cases]
    return of_two + [(case, [third[case] for third in thirds]) for case in thirds[0]]


def test_all_ranks_hold_the_same_weights_and_figures_bit_for_bit(halves, thirds):
    for case, (first, *others) in every(halves, thirds):
        for other in others:
            assert str(first["loss"]) == str(other["loss"]), case  # NaN is not equal to itself
            assert str(first["norm"]) == str(other["norm"]), case
            assert first["balance"] == other["balance"], case
            for name, tensor in first["weights"].items():
                assert torch.equal(tensor, other["weights"][name]), (case, name)


def moment_values(state: dict[str, torch.Tensor]) -> dict[str, int]:
    return {name: tensor.numel() for name, tensor in state.items() if name.startswith("optimizer.") and tensor.dim()}


def test_moments_are_held_once_over_all_ranks_and_evenly(small_text, halves, thirds):
    for case in OF_THREE:
        alone = moment_values(trained(case, small_text.folder, ALONE)["state"])
        for ranks in (halves, thirds):
            held = [moment_values(rank[case]["state"]) for rank in ranks]
            together = {name: sum(one.get(name, 0) for one in held) for name in alone}
            assert together == alone
            sums = [sum(one.values()) for one in held]
            assert max(sums) < 1.05 * sum(sums) / len(ranks)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("recipe", [RECIPE, MUON], ids=["adamw", "muon"])
def test_every_row_has_one_owner_and_no_rank_has_two_parts_of_a_weight(count, recipe):
    model = initialise(SPARSE, 0)
    parts = owners(model, recipe, count)
    rows = [(part.weight, row) for part in parts for row in range(part.first, part.last)]
    sizes = [len(parameter) for parameter in model.parameters()]
    assert rows == [(weight, row) for weight, size in enumerate(sizes) for row in range(size)]
    assert len({(part.weight, part.owner) for part in parts}) == len(parts)
    if recipe is MUON:
        whole = {number for number, (name, _) in enumerate(model.named_parameters()) if name.endswith("w_qkv_DQ")}
        assert whole
        assert all(part.first == 0 for part in parts if part.weight in whole)


def test_small_messages_carry_the_same_as_one(halves):
    for half in halves:
        assert half["small messages"]["norm"] == pytest.approx(half["sparse"]["norm"], rel=1e-12)
        for name, tensor in half["sparse"]["state"].items():
            assert torch.equal(tensor, half["small messages"]["state"][name]), name


def test_no_rank_takes_a_step_whose_gradient_is_no_number_on_one_of_them(halves):
    """Both end there, with the weights of the step before."""
    before = halves[0]["sparse"]
    for half in halves:
        assert len(half["broken"]["loss"]) == BROKEN_STEP + 1
        assert half["broken"]["loss"] == before["loss"][: BROKEN_STEP + 1]
        assert str(half["broken"]["norm"][-1]) == "nan"
        assert half["broken"]["sums"][-1] == half["broken"]["sums"][-2]
    assert len(set(before["sums"])) == RECIPE.steps


@pytest.mark.parametrize("case", ON_DEVICE)
def test_steps_as_a_gpu_takes_them_are_one_devices(halves, case):
    """Bit for bit with AdamW; Muon's products of several matrices at once round by their number."""
    alone = state_on_device(*case[:2], ALONE, case[2])
    for half in halves:
        state = half["on device"][case]
        for name, tensor in alone.items():
            if name.startswith("model."):
                torch.testing.assert_close(state[name], tensor, rtol=0, atol=1e-6 if case[0] == "muon" else 0)


@pytest.mark.parametrize("case", ON_DEVICE)
def test_a_step_on_devices_that_is_no_number_on_one_of_them_changes_nothing_on_any(halves, case):
    for half in halves:
        before, after = half["on device"][case], half["broken on device"][case]
        assert before.keys() == after.keys()
        assert [name for name, tensor in before.items() if not torch.equal(tensor, after[name])] == []


def test_optimizers_of_one_device_are_refused_on_ranks(halves):
    assert halves[1]["others' weights"].endswith("rank 1 of 2 owns")


def test_zeros_stay_zero_on_every_rank(halves):
    for half in halves:
        matrix = half["zeros"]["weights"]["blocks.0.attention.w_qkv_DQ"]
        assert 0.4 < float((matrix == 0).float().mean()) < 0.6


def test_each_rank_goes_back_to_its_own_state(halves):
    assert all(half["gone back"] for half in halves)


@pytest.mark.parametrize("case", OF_THREE)
def test_a_state_that_two_ranks_saved_is_resumed_by_one_and_by_three(small_text, folder, halves, thirds, case):
    """With every moment bit for bit; from there they train as two ranks do that never stopped."""
    alone = trained(case, small_text.folder, ALONE, folder / case)
    three_resumed = [third[f"resumed {case}"] for third in thirds]
    for half in halves:
        for name, tensor in half["saved"][case].items():
            same = alone["loaded"][name]
            assert torch.equal(tensor, same) or (tensor.shape != same.shape and _within(tensor, same)), name
    for name, tensor in alone["loaded"].items():
        parts = [third["loaded"][name] for third in three_resumed if name in third["loaded"]]
        assert all(torch.equal(part, tensor) or _within(part, tensor) for part in parts), name
    for resumed in (alone, three_resumed[0]):
        assert resumed["loss"] == pytest.approx(halves[0][case]["loss"][SAVED:], rel=1e-5)
        assert resumed["norm"] == pytest.approx(halves[0][case]["norm"][SAVED:], rel=1e-4)


def _within(part: torch.Tensor, whole: torch.Tensor) -> bool:
    """Whether the rows of `part` are some of `whole`, in place."""
    return any(torch.equal(part, whole[first : first + len(part)]) for first in range(len(whole) - len(part) + 1))


@pytest.mark.parametrize("case", OF_THREE)
def test_the_file_is_the_same_whoever_writes_it(folder, thirds, case, tmp_path):
    saved_again(case, folder / case, tmp_path, ALONE)
    by_two, by_three, by_one = (
        hashlib.sha256((home / f"step-{SAVED}.safetensors").read_bytes()).hexdigest()
        for home in (folder / case, folder / f"{case} again", tmp_path)
    )
    assert by_two == by_three == by_one


def test_a_full_disk_of_the_first_is_the_same_error_on_all_ranks(halves):
    assert halves[0]["refused"] == halves[1]["refused"]
    assert "cannot write" in halves[0]["refused"]


def test_ranks_agree_on_loss_and_norm_however_their_own_differ(halves):
    """The norm of the whole is the root of the squares' sum."""
    assert halves[0]["agreed"] == halves[1]["agreed"] == [(1.5, 5.0), (2.0, math.inf)]
    assert ALONE.agree(1.0, 4.0) == (1.0, 4.0)
    assert [half["first"] for half in halves] == [5.0, 5.0]
