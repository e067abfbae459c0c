"""Two and three processes with equal shares of each batch train as one does with all of it, and share its moments."""

from __future__ import annotations

import hashlib
import math
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsedial.model.transformer import initialise
from sparsedial.records.record import plain
from sparsedial.runs.job import Job
from sparsedial.runs.ranks.costs import rank_costs
from sparsedial.shape.ladder import Ladder
from sparsedial.training import messages
from sparsedial.training import ranks as module
from sparsedial.training.muon_matrices import by_muon
from sparsedial.training.owners import owners
from sparsedial.training.ranks import ALONE
from tests.training.on_ranks import on_ranks
from tests.training.ranked import (
    BROKEN_STEP,
    CASES,
    COSTS,
    MUON,
    OF_THREE,
    ON_DEVICE,
    RECIPE,
    SAVED,
    SPARSE,
    saved_again,
    three,
    trained,
    two,
)
from tests.training.steps import state_on_device


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


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("recipe", [RECIPE, MUON], ids=["adamw", "muon"])
def test_every_value_has_one_owner_and_no_rank_has_two_parts_of_a_weight(count, recipe):
    """Muon's matrices have one owner each."""
    model = initialise(SPARSE, 0)
    named, parts = list(model.named_parameters()), owners(model, recipe, count)
    for number, (name, weight) in enumerate(named):
        own = [part for part in parts if part.weight == number]
        assert [part.first for part in own] == [0, *(part.last for part in own[:-1])]
        assert own[-1].last == weight.numel()
        assert len({part.owner for part in own}) == len(own)
        if by_muon(name, weight, recipe):
            matrix = weight.shape[-2:].numel()
            assert all(part.first % matrix == 0 == part.last % matrix for part in own)


@pytest.mark.parametrize(("recipe", "most"), [(RECIPE, 1.08), (MUON, 1.35)], ids=["adamw", "muon"])
def test_more_ranks_than_experts_have_even_shares_all_the_same(recipe, most):
    """Of Muon as even as whole matrices can be: 16 ranks have 4 layers of 8 experts."""
    model = initialise(Ladder(vocab_size=2048, context=128).shape(128, 8), 0)
    parts = owners(model, recipe, 16)
    held = [sum(part.values for part in parts if part.owner == rank) for rank in range(16)]
    assert max(held) < most * sum(held) / 16


def test_the_rest_of_divided_weights_goes_round():
    """So that no rank has more of all of them: 8 experts over 3 ranks are 3, 3 and 2 in each layer."""
    model = initialise(SPARSE, 0)
    named = list(model.named_parameters())
    parts = [part for part in owners(model, MUON, 3) if named[part.weight][0].endswith("w_in_EDH")]
    fewest = {part.owner for part in parts if 4 * part.values == named[part.weight][1].numel()}
    assert len(parts) == 3 * SPARSE.layers
    assert len(fewest) > 1


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


@pytest.mark.parametrize("case", COSTS)
def test_a_dry_run_counts_what_each_rank_really_holds_and_sends(halves, case, monkeypatch):
    monkeypatch.setitem(messages.MESSAGE_BYTES, "cpu", case[1])
    shape, recipe = CASES[case[0]]
    job = Job(shape=shape, recipe=recipe, text_digest="", tokenizer="", device="cpu", threads=1, kernels="compiled")
    counted = [plain(costs) for costs in rank_costs(job, 2)]
    for index, half in enumerate(halves):
        told = counted[index]
        memory, sent = told["memory_bytes"], told["bytes_per_step"]
        assert sent.pop("reduce_scatter") == 0
        assert memory.pop("activations") > 0
        assert {"parameters": told["parameters"], **memory, **sent} == half["costs"][case][0]
        assert told["rank"] == index


def test_messages_go_while_the_backward_pass_goes_on(halves):
    """All but those with the embedding's gradient, a quarter of all, have begun before it is there."""
    for half in halves:
        begun = half["costs"]["sparse", 2**12][1]
        assert len(begun) == 12
        assert sum(begun) >= 8
        assert sum(half["costs"]["sparse", 2**25][1]) == 0


@pytest.mark.parametrize("recipe", [RECIPE, MUON], ids=["adamw", "muon"])
def test_messages_go_from_the_head_down_to_the_embedding(recipe):
    """Multi-token prediction's weights, which have no gradient in some steps, keep no others waiting."""
    model = initialise(replace(SPARSE, mtp_layers=1, tied_embeddings=False), 0)
    names, parts = [name for name, _ in model.named_parameters()], owners(model, recipe, 3)
    sent = messages.messages(messages.in_order(parts, model), 3, "cpu")
    places = {names[piece.weight].split(".")[0]: None for message in sent for piece in message.pieces}
    assert list(places) == ["unembedding_VD", "norm_D", "blocks", "embedding_VD", "predictions"]
    blocks = [
        int(names[part.weight].split(".")[1])
        for part in messages.in_order(parts, model)
        if names[part.weight].startswith("blocks.")
    ]
    assert blocks == sorted(blocks, reverse=True)


def test_ranks_read_their_steps_together_by_the_firsts_clock(halves):
    assert [half["readings"] for half in halves] == [[1, 2, 4, 5]] * 2


def test_a_state_that_not_all_ranks_find_is_refused_by_all(halves):
    assert [half["another state"].startswith("give all machines one shared folder") for half in halves] == [True, True]


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
    """Whether the values of `part` are some of `whole`, in their order."""
    return any(torch.equal(part.view(-1), found) for found in whole.view(-1).unfold(0, part.numel(), 1))


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


def test_a_gpu_and_a_cpu_exchange_alike(halves):
    """By the collectives of each, on tensors of a CPU."""
    whole = (torch.arange(12.0) + torch.arange(12.0) ** 2).view(2, 6)
    for index, half in enumerate(halves):
        for total, gathered in half["both ways"]:
            assert torch.equal(total, whole[index])
            assert torch.equal(gathered, whole)


def test_one_process_trains_where_pytorch_was_built_without_collectives(monkeypatch):
    for name in ("reduce_scatter_single", "reduce_scatter_tensor", "all_gather_single", "all_gather_into_tensor"):
        monkeypatch.delattr(torch.distributed, name, raising=False)
    assert runpy.run_path(str(module.__file__))["ALONE"].count == 1


def test_ranks_agree_on_loss_and_norm_however_their_own_differ(halves):
    """The norm of the whole is the root of the squares' sum."""
    assert halves[0]["agreed"] == halves[1]["agreed"] == [(1.5, 5.0), (2.0, math.inf)]
    assert ALONE.agree(1.0, 4.0) == (1.0, 4.0)
    assert [half["first"] for half in halves] == [5.0, 5.0]
