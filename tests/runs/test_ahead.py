"""A GPU's kernels are compiled before the first step that launches them: all of them, once, on all cores."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton", reason="installed without Triton")

from benchmarks.gpu_counts import as_on_a_gpu
from benchmarks.gpu_step_resources import CAPABILITY, Launch, of_study, recorder
from sparsedial.evaluation.loss import counting_scorer
from sparsedial.evaluation.scorer import windows_at_once
from sparsedial.kernels import triton_launch
from sparsedial.model.transformer import Transformer
from sparsedial.records.recipe import Recipe
from sparsedial.records.trained_for import TrainedFor
from sparsedial.runs import ahead, execute
from sparsedial.runs.ahead import compile_ahead, launch_all
from sparsedial.runs.random_text import MIDDLE, random_inputs
from sparsedial.runs.run_store import RunStore
from sparsedial.runs.timed import replayed_by, study_recipe
from sparsedial.shape.ladder import Ladder
from sparsedial.training.dial import Draws
from sparsedial.training.optimizer import make_optimizers
from sparsedial.training.replayed import Replayed
from sparsedial.training.step import TrainingStep
from tests.runs.tiny import job_of

LADDER = Ladder(vocab_size=256, context=64)
RECIPE = study_recipe(32, 64, "cuda")
WINDOWS = 300  # of an evaluation: a whole call and a part of one
# Kernels of four of its models; lower it when they fall. One more here is several more of a study's 32 models, and each
# takes 0.3 to 0.5 s of the 150 that a short study has.
MOST_OF_STUDY = 46


def launched(launch) -> set[Launch]:
    """What a function launches on an H100."""
    found: Counter[Launch] = Counter()
    with as_on_a_gpu(recorder(found), CAPABILITY), FakeTensorMode(allow_non_fake_inputs=True):
        launch()
    return set(found)


def run_of(shape, recipe: Recipe, dial: TrainedFor | None) -> None:
    """The steps of a run, with the balance and without, and its score."""
    model = Transformer(shape)
    inputs = random_inputs(shape.vocab_size, recipe)
    inputs = replace(inputs, draws=None if dial is None else Draws.of(dial, shape, recipe))
    step = TrainingStep(model, make_optimizers(model, recipe), recipe, on_device=True)
    Replayed(step, inputs, 8).take(range(3))
    windows_WS1 = torch.zeros(WINDOWS, recipe.context + 1, dtype=torch.long)
    counting_scorer(model, recipe.dtype).losses_on_device(windows_WS1, recipe.context)


@pytest.mark.parametrize(
    ("width", "experts", "changes", "dial"),
    [
        (32, 0, {}, None),
        (256, 8, {}, None),  # large blocks, and weights by descriptor
        (48, 32, {"optimizer": "muon"}, None),
        (32, 8, {"dtype": "float32"}, TrainedFor(top_k_experts=(1, 2), by="layer")),
    ],
)
def test_all_that_a_run_launches_is_compiled_before_it(width, experts, changes, dial):
    recipe, shape = replace(RECIPE, steps=6000, **changes), LADDER.shape(width, experts)
    before = launched(lambda: launch_all(shape, recipe, None, dial, "cpu"))
    assert launched(lambda: run_of(shape, recipe, dial)) <= before


class Kernel:
    """Notes whether it was compiled or run."""

    def __init__(self) -> None:
        self.did: list[str] = []

    def warmup(self, *arguments, grid, **named) -> None:
        self.did.append("compiled")

    def __getitem__(self, grid):
        return lambda *arguments, **named: self.did.append("run")


def test_kernels_are_compiled_and_not_run_until_all_are_ready():
    kernel = Kernel()
    with triton_launch.compiled_ahead(2):
        triton_launch.launch(kernel, (1,))
    triton_launch.launch(kernel, (1,))
    assert kernel.did == ["compiled", "run"]


def test_a_backward_pass_in_another_thread_compiles_by_the_same_threads():
    """PyTorch runs a GPU's backward passes in a thread of its own."""
    from concurrent.futures import ThreadPoolExecutor

    from triton.runtime._async_compile import active_mode

    seen = []

    class Asks(Kernel):
        def warmup(self, *arguments, grid, **named) -> None:
            seen.append(active_mode.get())

    with triton_launch.compiled_ahead(2), ThreadPoolExecutor(1) as another:
        another.submit(triton_launch.launch, Asks(), (1,)).result()
    assert seen[0] is not None


def test_after_an_error_of_the_compiler_kernels_are_compiled_at_their_first_launch_again():
    """Triton's mode would stay on, and give the next kernel to threads that have ended."""
    from triton.runtime._async_compile import active_mode

    def compile_fails() -> None:
        raise ValueError("no registers left")

    class Fails(Kernel):
        def warmup(self, *arguments, grid, **named) -> None:
            mode = active_mode.get()
            assert mode is not None
            mode.submit("key", compile_fails, lambda kernel: None)

    with pytest.raises(ValueError, match="no registers left"), triton_launch.compiled_ahead(2):
        triton_launch.launch(Fails(), (1,))
    assert active_mode.get() is None


def test_what_was_compiled_is_not_compiled_again_and_a_cpu_compiles_nothing(monkeypatch):
    asked = []
    monkeypatch.setattr(ahead, "_compiled", set())
    monkeypatch.setattr(ahead, "launch_all", lambda shape, *rest: asked.append((shape.d_model, shape.experts)))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    shapes = [LADDER.shape(32, 0), LADDER.shape(32, 8)]
    compile_ahead(shapes, RECIPE, "cpu")
    assert asked == []
    for seed in (0, 1):  # another seed, another rate: the same kernels
        compile_ahead([*shapes, LADDER.shape(16, 0)][: 2 + seed], replace(RECIPE, seed=seed, steps=50), "cuda")
    assert asked == [(32, 0), (32, 8), (16, 0)]
    compile_ahead(shapes[:1], replace(RECIPE, batch=16), "cuda")
    assert asked[3:] == [(32, 0)]


def test_where_compiling_ahead_fails_a_warning_says_so_and_short_memory_is_an_error(monkeypatch):
    monkeypatch.setattr(ahead, "_compiled", set())
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    failures = [ValueError("no compiler"), torch.OutOfMemoryError("no room")]

    def fails(*given) -> None:
        raise failures.pop(0)

    monkeypatch.setattr(ahead, "launch_all", fails)
    with pytest.warns(UserWarning, match="not compiled ahead: ValueError: no compiler"):
        compile_ahead([LADDER.shape(32, 0)], RECIPE, "cuda")
    with pytest.raises(torch.OutOfMemoryError):
        compile_ahead([LADDER.shape(16, 0)], RECIPE, "cuda")


def test_models_whose_kernels_were_compiled_are_gone_before_memory_is_given_back(monkeypatch):
    """Whatever holds them in a circle: a run's own model comes next, and may need all of the card."""
    held: list[weakref.ref[Kernel]] = []
    given_back = []

    def launch(*_):
        kernel = Kernel()
        kernel.itself = kernel  # type: ignore[attr-defined]
        held.append(weakref.ref(kernel))

    monkeypatch.setattr(ahead, "_compiled", set())
    monkeypatch.setattr(ahead, "launch_all", launch)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(held[0]()))
    gc.disable()
    try:
        compile_ahead([LADDER.shape(32, 0)], RECIPE, "cuda")
    finally:
        gc.enable()
    assert given_back == [None]


def test_a_run_compiles_its_kernels_before_it_begins(small_text, tmp_path, monkeypatch):
    order = []
    begin = execute.begin
    monkeypatch.setattr(execute, "compile_ahead", lambda *given: order.append(given))
    monkeypatch.setattr(execute, "begin", lambda *given: order.append("begun") or begin(*given))
    job = job_of(small_text, steps=2)
    next(execute.execute(job, small_text, RunStore(tmp_path)))
    assert order == [([job.shape], job.recipe, "cpu", None, None), "begun"]


def test_a_gpu_scores_four_times_as_many_windows_in_a_call():
    assert windows_at_once(257, on_gpu=True) == 4 * windows_at_once(257) == 64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("width", "experts"), [(32, 0), (64, 8)])
def test_on_a_gpu_a_run_compiles_nothing_after_it(monkeypatch, width, experts):
    """Neither its first steps, nor their capture, nor its score."""
    from triton import knobs

    compiled = []
    shape = LADDER.shape(width, experts)
    monkeypatch.setattr(ahead, "_compiled", set())
    compile_ahead([shape], RECIPE, "cuda")
    monkeypatch.setattr(knobs.runtime, "jit_cache_hook", lambda **given: compiled.append(given["repr"]))
    replayed = replayed_by(shape, RECIPE, "cuda")
    assert replayed is not None
    replayed.take(range(MIDDLE, MIDDLE + 5))
    replayed.read()
    windows_WS1 = torch.zeros(WINDOWS, RECIPE.context + 1, dtype=torch.long, device="cuda")
    counting_scorer(replayed._step.model, RECIPE.dtype).losses_on_device(windows_WS1, RECIPE.context)
    assert (compiled, replayed.captured) == ([], 1)


def test_a_study_compiles_no_more_kernels_than_before():
    shapes = [LADDER.shape(width, experts) for width, experts in ((32, 0), (32, 32), (96, 8), (256, 16))]
    found = of_study(shapes, 64, 64)
    assert len(found) <= MOST_OF_STUDY, len(found)
