"""Steps as one function of tensors in place are those of the loop, and bake in nothing that changes."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import statistics
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sparsedial.evaluation.loss import evaluate_text
from sparsedial.model.transformer import Transformer, initialise
from sparsedial.records.recipe import Dtype
from sparsedial.records.trained_for import TrainedFor
from sparsedial.text.sampler import Sampler
from sparsedial.training import loop, muon
from sparsedial.training.adamw import OnePassAdamW
from sparsedial.training.inputs import Inputs
from sparsedial.training.loop import MOST_UNREAD, train_readings
from sparsedial.training.optimizer import hold_zeros, make_optimizers
from sparsedial.training.ranks import ALONE
from sparsedial.training.replayed import Kind, Replayed, why_not
from sparsedial.training.resume import restore_state, training_state
from sparsedial.training.step import TrainingStep
from sparsedial.training.token_selection import Selecting
from tests.runs.tiny import LADDER, RECIPE


class Reference:
    """Stands for a reference model's losses."""

    def of_windows(self, first_B: np.ndarray, context: int) -> np.ndarray:
        """Losses that differ from window to window."""
        return np.sin(first_B[:, None] + np.arange(context)).astype(np.float32)


DIAL = TrainedFor(top_k_experts=(1, 2), by="layer")
SELECTING: Any = Selecting(share=0.6, losses=cast(Any, Reference()))
CASES = {
    "dense": (0, {}, {}),
    "sparse": (8, {}, {}),
    "muon": (8, {"optimizer": "muon"}, {}),
    "clipped": (8, {"clip": 0.3}, {}),
    "bfloat16": (8, {"dtype": "bfloat16"}, {}),
    "balance at some steps": (8, {"steps": 620}, {}),
    "a dial": (8, {"schedule": "cosine"}, {"dial": DIAL}),
    "more tokens predicted, then none": (8, {"mtp_late_weight": 0.0}, {}),
    "selected tokens": (8, {}, {"selecting": SELECTING}),
    "a teacher": (0, {}, {"teacher": initialise(LADDER.shape(16, 0), 1)}),
}


@pytest.fixture(autouse=True)
def _seldom_read(request, monkeypatch) -> None:
    monkeypatch.setattr(loop, "READING_SECONDS", math.inf)
    if "on_a_gpu" in request.fixturenames:
        monkeypatch.setattr(muon, "orthogonal", torch.sign)  # which is bfloat16 on a GPU


def begun(experts: int, recipe):
    shape = LADDER.shape(12, experts)
    model = initialise(replace(shape, mtp_layers=1) if recipe.mtp_late_weight == 0 else shape, 0)
    return model, make_optimizers(model, recipe)


def trained(small_text, experts, recipe, replay, stop=0, begin=None, **given):
    """The figures of a run up to step 40, without seconds, and the state after it."""
    model, optimizers = begin or begun(experts, recipe)
    steps = []
    for reading in train_readings(model, optimizers, small_text, recipe, replay=replay, stop=stop or 40, **given):
        steps += [replace(step, seconds=0.0) for step in reading]
        if len(steps) + given.get("start", 0) == (stop or 40):
            break
    return steps, {name: tensor.clone() for name, tensor in training_state(model, optimizers).items()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("on_a_gpu")
def test_replayed_steps_are_the_loops(small_text, case):
    """Bit for bit; but Muon multiplies by a rate in another order."""
    experts, changes, given = CASES[case]
    recipe = replace(RECIPE, **changes)
    expected, state = trained(small_text, experts, recipe, replay=False, **given)
    steps, other = trained(small_text, experts, recipe, replay=True, **given)
    assert len(steps) == 40
    assert sum(step.balance is not None for step in steps) == (0 if not experts else 20 if recipe.steps > 600 else 40)
    if case != "muon":
        assert steps == expected
        assert all(torch.equal(other[name], tensor) for name, tensor in state.items())
    for step, one in zip(steps, expected, strict=True):
        assert (step.loss, step.gradient_norm) == pytest.approx((one.loss, one.gradient_norm), rel=1e-3)
        assert step.learning_rate == one.learning_rate


@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon"}, {"clip": 0.3}])
def test_replayed_steps_are_the_loops_by_the_compiled_kernels_too(small_text, changes):
    """To rounding: the loop's norm and its clipping add up in another order."""
    recipe = replace(RECIPE, **changes)
    expected, _ = trained(small_text, 8, recipe, replay=False)
    steps, _ = trained(small_text, 8, recipe, replay=True)
    for step, one in zip(steps, expected, strict=True):
        assert (step.loss, step.gradient_norm) == pytest.approx((one.loss, one.gradient_norm), rel=2e-3)


@pytest.mark.usefixtures("on_a_gpu")
def test_a_replayed_run_goes_on_from_its_state_bit_for_bit(small_text):
    whole, state = trained(small_text, 8, RECIPE, replay=True)
    first, kept = trained(small_text, 8, RECIPE, replay=True, stop=13)
    model, optimizers = begun(8, replace(RECIPE, seed=1))
    restore_state(model, optimizers, kept)
    rest, other = trained(small_text, 8, RECIPE, replay=True, begin=(model, optimizers), start=13)
    assert first + rest == whole
    assert all(torch.equal(other[name], tensor) for name, tensor in state.items())


@pytest.mark.usefixtures("on_a_gpu")
def test_weights_that_are_held_at_zero_stay_there_when_steps_are_replayed(small_text):
    model, optimizers = begun(8, RECIPE)
    with torch.no_grad():
        model.blocks[0].attention.w_out_QD[:5] = 0
    hold_zeros(model, optimizers)
    trained(small_text, 8, RECIPE, replay=True, begin=(model, optimizers))
    assert not model.blocks[0].attention.w_out_QD[:5].any()


@pytest.mark.parametrize("by", ["on_a_gpu", "compiled kernels"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_replayed_step_that_is_not_finite_leaves_all_as_it_was(request, small_text, by, optimizer):
    """However late it is read."""
    if by == "on_a_gpu":
        request.getfixturevalue("on_a_gpu")
    model, optimizers = begun(8, replace(RECIPE, optimizer=optimizer))
    calls = []

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return gradient * float("nan") if len(calls) == 11 else gradient

    model.norm_D.register_hook(spoil)
    steps, state = trained(small_text, 8, RECIPE, replay=True, begin=(model, optimizers))
    _, before = trained(small_text, 8, replace(RECIPE, optimizer=optimizer), replay=True, stop=10)
    assert [math.isfinite(step.gradient_norm) for step in steps] == [True] * 10 + [False]
    assert all(torch.equal(before[name], tensor) for name, tensor in state.items())


class Calls(TorchDispatchMode):
    """Notes every operation with its arguments: numbers as they are, tensors by the memory that they lie in.

    Memory that was made within is counted; that from outside has its address.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self._made: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no memory is used twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_value = func.name() == "aten::lift_fresh"  # of a number that becomes a tensor
        self.note(func.name(), (args, kwargs), by_value)
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._kept.append(tensor)
                self._made.setdefault(tensor.untyped_storage()._cdata, len(self._made))
        return made

    def note(self, name: str, arguments: Any, by_value: bool = False) -> None:
        """Note a call."""
        self._kept.append(arguments)
        self.seen.append((name, *self._described(arguments, by_value)))

    def _described(self, arguments: Any, by_value: bool) -> Iterator[Any]:
        for leaf in tree_leaves(arguments):
            if not isinstance(leaf, torch.Tensor):
                yield str(leaf)
            elif by_value:
                yield leaf.tolist()
            else:
                storage = leaf.untyped_storage()._cdata
                place = self._made.get(storage)
                yield ("held", leaf.data_ptr()) if place is None else ("made", place, leaf.storage_offset())
                yield tuple(leaf.shape), leaf.stride(), leaf.dtype


def begun_in_place(small_text, experts, recipe, dial=None, selecting=None, teacher=None):
    model, optimizers = begun(experts, recipe)
    sampler = Sampler(text=small_text, seed=0, sequences=recipe.batch, context=recipe.context)
    draws = None if dial is None else loop.Draws.of(dial, model.shape, recipe)
    inputs = Inputs(recipe=recipe, sampler=sampler, draws=draws, selecting=selecting)
    share = 1.0 if selecting is None else selecting.share
    step = TrainingStep(model, optimizers, recipe, teacher=teacher, token_share=share, on_device=True)
    return Replayed(step, inputs, MOST_UNREAD)


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("clipped", "balance at some steps")])
def test_two_steps_in_turn_call_the_same_with_the_same(small_text, case):
    """A graph repeats the calls of one step: a number or an address that changes would be baked in."""
    pytest.importorskip("triton", reason="installed without Triton")
    from benchmarks.gpu_counts import as_on_a_gpu

    experts, changes, given = CASES[case]
    calls: list[Calls] = []

    def launch(kernel: Any, grid: Any, *arguments: Any, **constants: Any) -> None:
        if calls:
            calls[-1].note(str(kernel), (grid, arguments, constants))

    with as_on_a_gpu(launch):
        rising = replace(RECIPE, warmup_share=0.5, **changes)  # so that every step has a rate of its own
        steps = begun_in_place(small_text, experts, rising, **given)
        steps._send(range(4))
        for number in range(4):
            if number >= 2:  # the first made the moments
                calls.append(Calls())
            kind = Kind(with_balance=bool(experts), predicts="predicted" in case)
            if calls:
                with calls[-1]:
                    steps.step_in_place(kind)
            else:
                steps.step_in_place(kind)
    before, after = (one.seen for one in calls)
    assert len(before) > 100
    assert "aten::_local_scalar_dense" not in {name for name, *_ in before}  # a number that is read from the device
    for one, other in zip(before, after, strict=True):
        assert one == other


def test_what_is_not_replayed_says_why(small_text, monkeypatch):
    model, _ = begun(8, RECIPE)
    assert why_not(model, RECIPE, ALONE, small_text) == "a CPU gains nothing"
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr("sparsedial.training.replayed.triton_launch.available", lambda: False)
    assert why_not(model, RECIPE, ALONE, small_text) == "Triton is not installed"
    monkeypatch.setattr("sparsedial.training.replayed.triton_launch.available", lambda: True)
    assert "spikes" in (why_not(model, replace(RECIPE, spike_sigmas=6.0), ALONE, small_text) or "")
    for held, words in ((small_text.tokens("train").nbytes, "of the GPU's memory"), (2**40, None)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, held=held: (0, held))  # others' runs fill it
        reason = why_not(model, RECIPE, ALONE, small_text)
        assert reason is None if words is None else reason and words in reason


class Graph:
    """Stands for a CUDA graph: what is called while it is captured is not done, and is done at each replay."""

    open: Graph | None = None

    def __init__(self) -> None:
        self.call: Any = None

    def replay(self) -> None:
        self.call()

    def pool(self) -> str:
        return "pool"


REFUSED = RuntimeError("operation not permitted when stream is capturing\nmore")
NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("refused", "changes", "captured"),
    [
        (None, {"steps": 620}, [2, 2]),  # the balance is measured in every second step
        (None, {"steps": 40}, [2]),
        (None, {"steps": 40, "mtp_late_weight": 0.0}, [2, 4]),  # from step 27 on nothing more is predicted
        (REFUSED, {"steps": 620}, []),
        (NO_MEMORY, {"steps": 620}, []),
    ],
)
@pytest.mark.usefixtures("on_a_gpu")
def test_two_steps_are_taken_and_then_each_kind_is_captured_and_replayed(
    small_text, monkeypatch, refused, changes, captured
):
    """After a capture no step is taken that would need memory beside the graphs'; gradients are dropped before it.

    Where the device refuses, a warning says so, and the steps are taken all the same.
    """
    calls: list[str] = []
    captures: list[int] = []
    beside: list[tuple[int, int]] = []
    made: list[Any] = []
    pools: list[Any] = []
    forgotten: list[Any] = []
    ended: list[Any] = []

    @contextlib.contextmanager
    def capture(graph, pool, stream, **options):
        (one,) = made
        assert not [weight for weight in one._step._working.holders if weight.grad is not None]
        if refused is not None:
            raise refused
        pools.append(pool)
        captures.append(len(calls))
        Graph.open = graph
        yield
        Graph.open = None

    class OnStream(Replayed):
        def __init__(self, *given) -> None:
            super().__init__(*given)
            self._stream: Any = SimpleNamespace(device="cuda", wait_stream=lambda other: None)
            made.append(self)

        def step_in_place(self, kind: Kind) -> None:
            if Graph.open:
                Graph.open.call = functools.partial(Replayed.step_in_place, self, kind)
                return
            calls.append("taken")
            beside.append((len(self._graphs), len(self._held)))
            super().step_in_place(kind)

    for owner, name, value in (
        (loop, "Replayed", OnStream),
        (torch.cuda, "CUDAGraph", Graph),
        (torch.cuda, "graph", capture),
        (torch.cuda, "current_stream", lambda device: None),
        (torch.cuda, "stream", lambda stream: contextlib.nullcontext()),
        (torch.Tensor, "pin_memory", lambda tensor: tensor),
        (OnePassAdamW, "forget_tables", lambda optimizer: forgotten.append(optimizer)),
        (torch.cuda, "graph_pool_handle", lambda: "own pool"),
        (torch._C, "_cuda_endAllocateToPool", lambda *given: ended.append(given)),
        (torch._C, "_cuda_releasePool", lambda *given: ended.append(given)),
    ):
        monkeypatch.setattr(owner, name, value, raising=False)
    recipe = replace(RECIPE, **changes)
    expected, state = trained(small_text, 8, recipe, replay=False)
    why = "" if refused is None else str(refused).splitlines()[0]
    with pytest.warns(UserWarning, match=f"not captured: {why}") if refused else nullcontext():
        steps, other = trained(small_text, 8, recipe, replay=True)
    assert steps == expected
    assert all(torch.equal(other[name], tensor) for name, tensor in state.items())
    assert captures == captured
    late = "mtp_late_weight" in changes
    assert calls.count("taken") == (len(steps) if refused else 4 if late else 2)
    assert set(beside) == {(0, 0)}
    assert pools == (["own pool", "own pool"] if late else ["own pool", "pool"][: len(captured)])
    assert ended == (4 * [(0, "own pool")] if refused else [])  # of each kind: no more is given to it, and it is free
    assert len(forgotten) == (2 if refused else 0)  # of each kind: what was captured is not filled


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("case", CASES)
def test_graphs_on_a_gpu_give_the_loops_losses(small_text, case):
    experts, changes, given = CASES[case]
    recipe = replace(RECIPE, **changes)
    if "teacher" in given:
        given = {"teacher": copy.deepcopy(given["teacher"]).cuda()}

    def on_gpu(replay: bool):
        model, _ = begun(experts, recipe)
        model = model.cuda()
        return trained(small_text, experts, recipe, replay, begin=(model, make_optimizers(model, recipe)), **given)[0]

    for step, one in zip(on_gpu(True), on_gpu(False), strict=True):
        assert (step.loss, step.gradient_norm) == pytest.approx((one.loss, one.gradient_norm), rel=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("experts", [0, 8])
def test_a_gpu_learns_what_a_cpu_does_and_scores_as_it_does(request, small_text, experts, dtype):
    """Graphs, kernels and copies together, in the mean of the last steps; without a GPU, the way that steps take there.

    (On a CPU the two types are up to 0.04 apart.)
    """

    def ended(device: str, dtype: str) -> tuple[float, Transformer]:
        recipe = replace(RECIPE, dtype=dtype)
        model = initialise(LADDER.shape(12, experts), 0).to(device)
        begin = model, make_optimizers(model, recipe)
        steps, _ = trained(small_text, experts, recipe, replay=True, begin=begin)
        return statistics.fmean(step.loss for step in steps[-10:]), model

    def score(model: Transformer, dtype: Dtype) -> float:
        return evaluate_text(model, small_text, "validation", context=32, max_tokens=2048, dtype=dtype).loss

    exact, by_cpu = ended("cpu", "float32")
    assert exact < 3  # of 5.5 at the first step
    known = score(by_cpu, "float32")
    if not torch.cuda.is_available():
        request.getfixturevalue("on_a_gpu")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert ended(device, dtype)[0] == pytest.approx(exact, abs=0.15)
    assert score(by_cpu.to(device), dtype) == pytest.approx(known, abs=0.02)
