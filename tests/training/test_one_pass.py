"""AdamW's pass on a GPU equals PyTorch's AdamW: moments, weights and copies, in Triton's interpreter or on a GPU."""

from __future__ import annotations

import copy
import gc
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton", reason="installed without Triton")

from sparsedial.kernels import sparse, triton_adamw, triton_launch, triton_sparse, triton_tiles
from sparsedial.model.transformer import initialise
from sparsedial.records.recipe import Recipe
from sparsedial.shape.ladder import Ladder
from sparsedial.training.adamw import OnePassAdamW
from sparsedial.training.optimizer import make_optimizers, set_rate
from sparsedial.training.resume import restore_state, training_state
from sparsedial.training.step import Rates, TrainingStep, read

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
RECIPE = Recipe(learning_rate=0.01, steps=40, batch=4, context=16, width_base=8, beta1=0.8)
SIZES = [(3,), (70, 130), (1,), (4096,), (2, 33, 17)]  # one of several blocks, one of exactly one
WHOLE = [(12,), (72, 130), (32,), (4096,), (2, 32, 17)]  # such in multiples of 4


@pytest.fixture(autouse=True)
def _in_one_pass(request, monkeypatch):
    """The pass takes the tensors wherever they are."""
    if not GPU:
        request.getfixturevalue("on_a_gpu")
        monkeypatch.setattr(triton_launch, "available", lambda: True)
        monkeypatch.setattr(triton_launch, "on", lambda _: nullcontext())


def made(
    dtype: torch.dtype | None, sizes: list[tuple[int, ...]]
) -> tuple[list[torch.nn.Parameter], Mapping[torch.Tensor, torch.Tensor], OnePassAdamW]:
    """Parameters with copies of a type, but the first, and their optimizer of two groups."""
    make = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(size, generator=make).to(DEVICE)) for size in sizes]
    groups = [{"params": parameters[:2], "weight_decay": 0.1}, {"params": parameters[2:], "weight_decay": 0.0}]
    optimizer = OnePassAdamW([{**group, "scale": 1.0} for group in groups], RECIPE)
    if dtype is not None:
        optimizer.copies = {weight: weight.detach().to(dtype) for weight in parameters[1:]}
    return parameters, optimizer.copies, optimizer


@pytest.mark.gpu
@pytest.mark.parametrize("sizes", [SIZES, WHOLE], ids=["any", "whole"])
@pytest.mark.parametrize("rate_on_device", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_the_pass_equals_pytorchs_adamw(monkeypatch, dtype, rate_on_device, sizes):
    """Over steps with other rates and scales, one without some gradients, and one that must change nothing."""
    (mine, copies, ours), (others, held, theirs) = made(dtype, sizes), made(dtype, sizes)
    make = torch.Generator().manual_seed(1)
    for step in range(4):
        for one, other in zip(mine, others, strict=True):
            gradient = torch.randn(one.shape, generator=make).to(DEVICE)
            for weight, copied in ((one, copies.get(one)), (other, held.get(other))):
                taker = weight if copied is None else copied
                taker.grad = None if step == 1 and weight.numel() == mine[0].numel() else gradient.to(taker.dtype)
        rate, scale = 0.01 / (step + 1), torch.tensor(1.0 + step, device=DEVICE)
        for optimizer in (ours, theirs):
            set_rate([optimizer], torch.tensor(rate, device=DEVICE) if rate_on_device else rate)
            optimizer.grad_scale, optimizer.found_inf = scale, torch.tensor(float(step == 2), device=DEVICE)
        ours.step()
        with monkeypatch.context() as patch:
            patch.setattr(triton_launch, "available", lambda: False)
            set_rate([theirs], rate)
            theirs.step()
    for one, other in zip(mine, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
        for name, value in theirs.state[other].items():
            torch.testing.assert_close(ours.state[one][name], value, atol=1e-6, rtol=1e-5)
    assert ours.state[mine[0]]["step"] == 2
    assert ours.state[mine[1]]["step"] == 3
    for weight, copied in copies.items():
        assert_copied(copied, weight)


def assert_copied(copied: torch.Tensor, weight: torch.Tensor) -> None:
    """Rounded to nearest; but Triton's interpreter cuts bfloat16 off."""
    far = 0.0 if GPU or copied.dtype == torch.float16 else 2**-7
    torch.testing.assert_close(copied, weight.detach().to(copied.dtype), atol=0.0, rtol=far)


@pytest.mark.gpu
def test_a_training_step_reads_the_copies_that_the_pass_wrote():
    """And anything that else changed a weight is copied before the next step."""
    recipe = replace(RECIPE, dtype="bfloat16")
    model = initialise(Ladder(vocab_size=64, context=16).shape(16, 8), 0).to(DEVICE)
    optimizers = make_optimizers(model, recipe)
    step = TrainingStep(model, optimizers, recipe)
    ids_BS1 = torch.randint(64, (4, 17), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    first = [read([step.take(ids_BS1, Rates(0.01, 0.0, 0.0))])[0].loss for _ in range(3)]
    assert first[2] < first[1] < first[0]
    working = step._working.model
    names = [name for name, _ in model.named_parameters() if not name.endswith("w_router_DE")]
    for name in names:
        assert_copied(working.get_parameter(name), model.get_parameter(name))
    with torch.no_grad():
        model.norm_D.mul_(2)
    step.take(ids_BS1, Rates(0.0, 0.0, 0.0))
    assert_copied(working.norm_D, model.norm_D)


@pytest.mark.gpu
def test_a_step_leaves_nothing_of_its_graph_behind(monkeypatch):
    """Not even for Python's collector: what gathers a weight's gradient would belong to the stream of that step, and
    one of the default stream breaks the capture of a later one.
    """
    if not GPU:
        monkeypatch.setattr(triton_sparse, "_tiles", lambda *_: triton_tiles.alike(triton_tiles.Tiles(16, 16, 16)))
        monkeypatch.setitem(sparse.KERNELS, "auto", sparse.fastest)
    model = initialise(replace(Ladder(vocab_size=16, context=8).shape(12, 3), layers=1), 0).to(DEVICE)
    step = TrainingStep(model, make_optimizers(model, RECIPE), RECIPE)
    ids_BS1 = torch.zeros(1, 5, dtype=torch.long, device=DEVICE)
    gc.disable()
    try:
        before = graphs_alive()
        taken = step.take(ids_BS1, Rates(0.01, 0.0, 0.0), with_balance=True)
        after = graphs_alive()
    finally:
        gc.enable()
    assert read([taken])[0].finite
    assert {id(one) for one in after} <= {id(one) for one in before}


def graphs_alive() -> list[object]:
    """Nodes of autograd's graphs that Python's collector knows; of another test too, where something still holds it."""
    return [one for one in gc.get_objects() if issubclass(type(one), torch.autograd.function.BackwardCFunction)]


def test_a_thread_reads_several_values_where_addresses_and_sizes_allow_it():
    held = torch.zeros(64)
    step = torch.zeros(())
    for given, wide in ((held, True), (held[4:16], True), (held[1:17], False), (held[:15], False)):
        assert triton_adamw._wide((given, held, held, held, step, None)) == wide
        assert triton_adamw._wide((held, held, held, held, step, given)) == wide


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_goes_on_from_its_state_bit_for_bit(dtype):
    recipe = replace(RECIPE, dtype=dtype)
    ids_BS1 = torch.randint(64, (4, 17), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    model, other = (initialise(Ladder(vocab_size=64, context=16).shape(16, 0), seed).to(DEVICE) for seed in (0, 1))
    optimizers, others = make_optimizers(model, recipe), make_optimizers(other, recipe)

    def losses(model, optimizers, count):
        step = TrainingStep(model, optimizers, recipe)
        return [read([step.take(ids_BS1, Rates(0.01, 0.0, 0.0))])[0].loss for _ in range(count)]

    losses(model, optimizers, 2)
    state = copy.deepcopy(training_state(model, optimizers))
    assert {name.rpartition(".")[2] for name in state if name.startswith("optimizer")} == {
        "step",
        "exp_avg",
        "exp_avg_sq",
    }
    expected = losses(model, optimizers, 3)
    restore_state(other, others, state)
    assert losses(other, others, 3) == expected
