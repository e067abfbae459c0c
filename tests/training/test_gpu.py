"""A training step as a GPU takes it: no wait, types by rule, few casts and launches, figures read now and then."""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

pytest.importorskip("triton", reason="installed without Triton")

from benchmarks import gpu_counts
from benchmarks.gpu_counts import DTYPES, FAMILIES, SHAPES, Operations, as_on_a_gpu, counts_of
from benchmarks.gpu_waits import waits_are_errors
from sparsedial.kernels import native
from sparsedial.model import head
from sparsedial.model.transformer import initialise
from sparsedial.training import loop, muon
from sparsedial.training.loop import train_readings
from sparsedial.training.optimizer import make_optimizers
from sparsedial.training.replayed import Kind
from sparsedial.training.resume import training_state
from sparsedial.training.step import Rates, TrainingStep, read
from sparsedial.training.token_selection import by_excess
from tests.runs.tiny import LADDER, RECIPE
from tests.training.test_replayed import begun_in_place

WAITS = (DataDependentOutputException, DynamicOutputShapeException)
MOST_OF_MUON = {"dense": 241, "sparse": 332}  # launches, in bfloat16
MOST_OF_FAMILIES = {"as OLMoE": 142, "as DeepSeek-V3's router": 176, "as top-p": 176}
MOST_OF_BALANCE = 2  # launches; a replayed step has two more, which keep both until they are read
MOST = {  # launches and casts of a step of two layers; lower them when they fall
    ("dense", "float32"): (92, 1),
    ("dense", "bfloat16"): (92, 1),
    ("sparse", "float32"): (170, 3),
    ("sparse", "bfloat16"): (176, 7),
}


@cache
def counted(name, dtype):
    return counts_of(SHAPES[name], dtype)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon"}])
@pytest.mark.parametrize("name", SHAPES)
def test_a_training_step_never_waits_for_the_device(name, changes):
    """Not even where it measures the routers' balance."""
    counts_of(SHAPES[name], "bfloat16", with_balance=True, **changes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_of_a_dial_never_waits_for_the_device_either(dtype):
    counts = counts_of(SHAPES["sparse"], dtype, top_k=1)
    assert counts.launches > counted("sparse", dtype).launches  # the choices that are not visited are left out


def test_a_choice_of_tokens_waits_for_no_device():
    with as_on_a_gpu(print), FakeTensorMode():
        weight = by_excess(torch.zeros(4, 8), 0.6)(torch.zeros(4, 8))
    assert weight.shape == (4, 8)


@pytest.mark.parametrize("wait", [lambda x: float(x[0]), lambda x: x.nonzero(), lambda x: torch.bincount(x.long())])
def test_an_operation_that_waits_would_be_found(wait):
    with as_on_a_gpu(print), FakeTensorMode(), pytest.raises(WAITS):
        wait(torch.ones(3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_experts_work_in_the_recipes_type(dtype):
    assert set(counted("sparse", dtype).expert_dtypes) == {dtype}


@pytest.mark.parametrize(("name", "dtype"), MOST)
def test_a_step_launches_and_casts_no_more_than_before(name, dtype):
    counts = counted(name, dtype)
    launches, casts = MOST[name, dtype]
    assert (counts.launches <= launches, counts.casts <= casts) == (True, True), counts


@pytest.mark.parametrize("width", [32, 128])
def test_measuring_the_balance_launches_as_few_whatever_the_number_of_layers(width):
    """Every step of a short run does, and dense ones have nothing to measure."""
    shape = gpu_counts.LADDER.shape(width, 32)
    measured = counts_of(shape, "bfloat16", with_balance=True).launches
    assert measured - counts_of(shape, "bfloat16").launches <= MOST_OF_BALANCE


def test_a_replayed_step_that_measures_the_balance_launches_hardly_more(small_text):
    """It keeps loads and biases; what follows from them is found when they are read, for all steps at once."""
    launches = []
    with as_on_a_gpu(lambda *_, **__: None):
        steps = begun_in_place(small_text, 8, RECIPE)
        steps._send(range(3))
        for with_balance in (True, False, True):
            with Operations() as operations:
                steps.step_in_place(Kind(with_balance, predicts=False))
            launches.append(operations.seen.total())
    assert launches[2] - launches[1] == 4


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_of_others_models_neither_waits_nor_launches_more_than_before(name):
    counts_of(FAMILIES[name], "bfloat16", with_balance=True)
    counts = counts_of(FAMILIES[name], "bfloat16")
    assert counts.launches <= MOST_OF_FAMILIES[name], counts


@pytest.mark.parametrize("name", MOST_OF_MUON)
def test_a_step_of_muon_launches_no_more_than_before(name):
    assert counts_of(SHAPES[name], "bfloat16", optimizer="muon").launches <= MOST_OF_MUON[name]


def trained(small_text, recipe, experts=8, broken_step=None):
    """The readings of a run, and the state after it; one step's gradient may be no number."""
    model = initialise(LADDER.shape(12, experts), 0)
    calls = []

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return gradient * float("nan") if len(calls) - 1 == broken_step else gradient

    model.norm_D.register_hook(spoil)
    optimizers = make_optimizers(model, recipe)
    readings = list(train_readings(model, optimizers, small_text, recipe))
    return readings, {name: tensor.clone() for name, tensor in training_state(model, optimizers).items()}


def figures(readings):
    return [replace(step, seconds=0.0) for steps in readings for step in steps]


@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon"}, {"clip": 0.3}])
@pytest.mark.parametrize("experts", [0, 8])
def test_steps_read_now_and_then_are_those_read_at_once(request, monkeypatch, small_text, experts, changes):
    """Bit for bit where nothing is clipped; clipping multiplies on one side and divides on the other."""
    monkeypatch.setattr(muon, "orthogonal", torch.sign)  # which is bfloat16 on a GPU
    recipe = replace(RECIPE, **{"clip": 1e9, **changes})
    with monkeypatch.context() as patch:
        patch.setattr(native, "module", None)
        patch.setattr(head, "in_pieces", lambda _: True)
        at_once, state = trained(small_text, recipe, experts)
    request.getfixturevalue("on_a_gpu")
    monkeypatch.setattr(loop, "READING_SECONDS", math.inf)
    late, other = trained(small_text, recipe, experts)
    assert [len(steps) for steps in at_once] == [1] * 40
    assert [len(steps) for steps in late] == [1, 2, 4, 8, 16, 9]
    if "clip" not in changes:
        assert figures(late) == figures(at_once)
        assert all(torch.equal(other[name], tensor) for name, tensor in state.items())
    for one, two in zip(figures(late), figures(at_once), strict=True):
        assert (one.loss, one.gradient_norm) == pytest.approx((two.loss, two.gradient_norm), rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.usefixtures("on_a_gpu")
def test_a_step_that_is_not_finite_leaves_all_as_it_was_whatever_is_read_later(monkeypatch, small_text, optimizer):
    """Weights, moments, counters and routing biases are those of a run that ends before it."""
    monkeypatch.setattr(loop, "READING_SECONDS", math.inf)
    recipe = replace(RECIPE, optimizer=optimizer)
    readings, state = trained(small_text, recipe, broken_step=10)
    steps = figures(readings)
    assert [len(reading) for reading in readings] == [1, 2, 4, 4]  # the last reading was of eight
    assert [math.isfinite(step.gradient_norm) for step in steps] == [True] * 10 + [False]
    assert steps[-1].balance is None
    model = initialise(LADDER.shape(12, 8), 0)
    optimizers = make_optimizers(model, recipe)
    whole = train_readings(model, optimizers, small_text, recipe, stop=10)
    assert [len(next(whole)) for _ in range(4)] == [1, 2, 4, 3]
    for name, tensor in training_state(model, optimizers).items():
        assert torch.equal(state[name], tensor), name


@pytest.mark.usefixtures("on_a_gpu")
def test_every_step_is_read_where_spikes_are_undone_or_steps_are_slow(monkeypatch, small_text):
    guarded, _ = trained(small_text, replace(RECIPE, spike_sigmas=6.0))
    monkeypatch.setattr(loop, "READING_SECONDS", 0.0)
    slow, _ = trained(small_text, RECIPE)
    assert {len(steps) for steps in (*guarded, *slow)} == {1}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("name", SHAPES)
def test_pytorch_finds_no_wait_in_a_step_on_a_gpu(name, optimizer):
    recipe = replace(RECIPE, dtype="bfloat16", optimizer=optimizer)
    model = initialise(SHAPES[name], 0).cuda()
    step, rates = TrainingStep(model, make_optimizers(model, recipe), recipe), Rates(1e-3, 1e-2, 0.3)
    ids_BS1 = torch.zeros(8, 33, dtype=torch.long, device="cuda")
    step.take(ids_BS1, rates, with_balance=True)  # compiles kernels, chooses tiles
    with waits_are_errors():
        taken = step.take(ids_BS1, rates, with_balance=True)
    assert read([taken])[0].finite


@pytest.mark.parametrize("waits", [False, True])
def test_the_mode_in_which_waits_are_errors_ends_whatever_comes_of_it(monkeypatch, waits):
    """PyTorch sets the mode and then warns; here warnings are errors."""
    modes = []

    def set_mode(mode):
        modes.append(mode)
        if len(modes) == 1:
            warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=2)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with pytest.raises(RuntimeError, match="called a synchronizing") if waits else nullcontext(), waits_are_errors():
        assert modes == ["error"]
        if waits:
            raise RuntimeError("called a synchronizing CUDA operation")
    assert modes == ["error", "default"]
