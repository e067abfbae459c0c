"""What `benchmarks.gpu` measures, section by section. Each yields its figures by name as they are found, so that one
that is cut short keeps those before. Figures end in their unit.

T tokens, D d_model, E experts, K chosen, F d_expert.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_waits import waits_are_errors
from sparsedial.machine.hardware import usable_cores
from sparsedial.machine.timing import measure_in_turn
from sparsedial.model.transformer import Transformer
from sparsedial.records.recipe import Dtype, Recipe
from sparsedial.runs.ahead import compile_ahead
from sparsedial.runs.random_text import MIDDLE
from sparsedial.runs.timed import HARMLESS_RATE, replayed_by, step_by, step_of
from sparsedial.shape.counts import training_flops_per_token
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.published import PUBLISHED
from sparsedial.shape.shape import Shape
from sparsedial.training.optimizer import make_optimizers
from sparsedial.training.replayed import Replayed
from sparsedial.training.step import Figures as TakenFigures
from sparsedial.training.step import Rates, TrainingStep, read
from sparsedial.units import parse_seconds

ROOT = Path(__file__).parents[1]
STEP_LAYERS, STEP_CONTEXT = 3, 2048
BATCHES = {"8k": 4, "32k": 16}  # sequences, by the tokens of an optimizer step
LADDER = Ladder(vocab_size=256, context=128)
WIDTHS, TOGETHER = (32, 128, 256), (2, 4, 8, 16)
ROUNDS = 5  # of what is timed in turn
LATEST, LATE = 1.1, -9  # a study may take so many times its limit; the status of one that was ended then
ENDING = 8.0  # seconds of a study's section beside the study
OF_STEPS = ("d_model", "experts", "median_seconds")  # of the profile's rows
CHUNK = 40  # replayed steps between two readings; every second one measures the balance
Figures = Iterator[tuple[str, Any]]


@dataclass(frozen=True)
class Place:
    """Where sections run, whether at toy sizes, and how long one may take."""

    device: str
    quick: bool
    limit: float = math.inf

    def wait(self) -> None:
        """Wait until the device has done its work."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, calls: dict[str, Callable[[], object]], full_seconds: float = 1.0) -> dict[str, float]:
        """The median of each call, all in turn."""

        def waiting(call: Callable[[], object]) -> None:
            call()
            self.wait()

        rounds, each = (1, 0.01) if self.quick else (ROUNDS, full_seconds)
        timings = measure_in_turn(
            {name: partial(waiting, call) for name, call in calls.items()}, rounds=rounds, round_seconds=each
        )
        return {name: timing.median_seconds for name, timing in timings.items()}

    def random(self, *size: int, scale: float = 1.0) -> Tensor:
        """Numbers of the type of products here."""
        dtype = torch.bfloat16 if self.device == "cuda" else torch.float32
        return scale * torch.randn(*size, device=self.device, dtype=dtype)

    def step(self, shape: Shape, batch: int, context: int, dtype: Dtype) -> Callable[[], None]:
        """A training step on random ids."""
        recipe = Recipe(learning_rate=HARMLESS_RATE, steps=1000, batch=batch, context=context, dtype=dtype)
        self.ready([shape], recipe)
        model = self.model(shape)
        return step_of(model, make_optimizers(model, recipe), recipe, self.device)

    def ready(self, shapes: Iterable[Shape], recipe: Recipe) -> float:
        """Compile the kernels of these shapes' steps on all cores; the seconds that it took."""
        began = time.perf_counter()
        compile_ahead(shapes, recipe, self.device)
        return time.perf_counter() - began

    def model(self, shape: Shape) -> Transformer:
        """A model whose weights were drawn on the device: drawing them on the host takes seconds."""
        with torch.device(self.device), torch.no_grad():
            model = Transformer(shape)
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, parameter.shape[-2] ** -0.5)
        return model


def card(place: Place) -> Figures:
    """The card, its versions, and the rates that nothing can exceed: a copy, and large products of random numbers."""
    yield "torch", torch.__version__
    if place.device == "cuda":
        yield "name", torch.cuda.get_device_name()
        yield "capability", ".".join(map(str, torch.cuda.get_device_capability()))
        yield "cudnn", torch.backends.cudnn.version()  # from 9.15.1 on PyTorch takes its attention on Hopper
    side, words, values = (128, 256, 1 << 16) if place.quick else (8192, 50304, 1 << 31)
    source = torch.empty(values, dtype=torch.bfloat16, device=place.device)
    seconds = place.seconds({"copy": source.clone}, 0.3)["copy"]
    yield "copy_gb_per_second", 2 * source.nbytes / seconds / 1e9
    del source
    for name, sizes in {"square": (side, side, side), "head": (side, side // 4, words)}.items():
        left, right = place.random(sizes[0], sizes[1]), place.random(sizes[1], sizes[2])
        seconds = place.seconds({name: partial(torch.mm, left, right)}, 0.3)[name]
        yield f"{name}_product_tflops", 2 * sizes[0] * sizes[1] * sizes[2] / seconds / 1e12


def tests(place: Place) -> Figures:
    """The tests that need a GPU, of the files that hold some: others may need packages that are not there."""
    began, counts, failures = time.perf_counter(), dict.fromkeys(("passed", "failed", "skipped", "errors"), 0), []
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-vv", "-rfE"]
    command += ["tests/kernels/test_triton.py"] if place.quick else files_with_gpu_tests()
    if importlib.util.find_spec("xdist") is not None and not place.quick:
        workers = max(2, usable_cores() // 2)  # most of the time goes to compilers
        command += ["-p", "xdist.plugin", "--numprocesses", str(workers)]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # whatever else is installed there
    environment |= {"TRITON_INTERPRET": "0"} if place.device == "cuda" else {}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        for line in child.stdout:
            ended = re.search(r"\b(PASSED|FAILED|SKIPPED)\b", line) if "%]" in line else None
            if ended:
                counts[ended[1].lower()] += 1
                yield ended[1].lower(), counts[ended[1].lower()]
            elif line.startswith(("FAILED", "ERROR")):
                failures.append(line.strip()[:200])
                counts["errors"] += line.startswith("ERROR")
    yield from counts.items()
    yield "pytest_seconds", time.perf_counter() - began
    yield "failures", failures


def files_with_gpu_tests() -> list[str]:
    """The test files with a test that is marked `gpu`; the kernels', whose compilers take most of the time, last."""
    files = sorted((ROOT / "tests").rglob("test_*.py"), key=lambda file: ("kernels" in file.parts, file))
    return [str(file.relative_to(ROOT)) for file in files if "pytest.mark.gpu" in file.read_text()]


def waits(place: Place) -> Figures:
    """Whether PyTorch finds a wait in a small step, and how many kernels it launches."""
    recipe = Recipe(learning_rate=HARMLESS_RATE, steps=1000, batch=8, context=128, dtype="bfloat16")
    yield "compile_seconds", place.ready([LADDER.shape(32, 32), LADDER.shape(32, 0)], recipe)
    for name, experts in (("sparse", 32), ("dense", 0)):
        shape = LADDER.shape(32, experts)
        model = place.model(shape)
        training, rates = TrainingStep(model, make_optimizers(model, recipe), recipe), Rates(HARMLESS_RATE, 1e-2, 0.3)
        ids_BS1 = torch.zeros(8, 129, dtype=torch.long, device=place.device)
        training.take(ids_BS1, rates, with_balance=True)  # compiles kernels, chooses tiles
        try:
            with waits_are_errors() if place.device == "cuda" else nullcontext():
                taken = training.take(ids_BS1, rates, with_balance=True)
        except RuntimeError as error:
            yield f"{name}_waits", str(error)[:200]
            continue
        yield f"{name}_waits", 0
        yield f"{name}_is_finite", read([taken])[0].finite
        rows = _profiled(place, partial(training.take, ids_BS1, rates))
        yield f"{name}_launches", sum(count for _, _, count in rows)


def _profiled(place: Place, call: Callable[[], object]) -> list[tuple[str, float, int]]:
    """Name, milliseconds and number of launches of everything that a call ran on the device, the longest first."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if place.device == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds, acc_events=True) as profiler:  # without it PyTorch 2.11 warns
        call()
        place.wait()
    rows: dict[str, tuple[float, int]] = {}
    for event in profiler.events():
        # what PyTorch names, as an optimizer's step, spans launches and is none
        if event.device_type.name.lower() == place.device and not event.is_user_annotation:
            spent, count = rows.get(event.name, (0.0, 0))
            rows[event.name] = (spent + event.time_range.elapsed_us() / 1e3, count + 1)
    listed = [(name, spent, count) for name, (spent, count) in rows.items()]
    return sorted(listed, key=lambda row: row[1], reverse=True)


def step_shapes(place: Place) -> dict[str, Shape]:
    """OLMoE's widths with a few layers, and dense of the same active size."""
    if place.quick:
        return {"sparse": LADDER.shape(16, 8), "dense": LADDER.shape(16, 0)}
    sparse = replace(PUBLISHED["olmoe-1b-7b"], layers=STEP_LAYERS)
    d_ff = sparse.top_k * sparse.d_expert
    return {"sparse": sparse, "dense": replace(sparse, experts=0, top_k=0, d_expert=0, d_ff=d_ff)}


def step(place: Place) -> Figures:
    """Sparse and dense training steps in turn: time, tax, rate and memory; then with a float32 stream."""
    shapes, context = step_shapes(place), 32 if place.quick else STEP_CONTEXT
    for size, batch in BATCHES.items():
        batch = 2 if place.quick else batch
        steps = {name: place.step(shape, batch, context, "bfloat16") for name, shape in shapes.items()}
        yield from _stepped(place, steps, shapes, size, batch * context)
        if place.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            steps["sparse"]()
            yield f"sparse_{size}_peak_gb", torch.cuda.max_memory_allocated() / 1e9
        del steps
    other = {"sparse_float32_stream": place.step(shapes["sparse"], batch, context, "bfloat16_products")}
    yield "sparse_float32_stream_32k_ms", 1e3 * place.seconds(other)["sparse_float32_stream"]


def _stepped(
    place: Place, steps: dict[str, Callable[[], None]], shapes: dict[str, Shape], size: str, tokens: int
) -> Figures:
    context = 32 if place.quick else STEP_CONTEXT
    seconds = place.seconds(dict(steps), 2.0)
    for name, shape in shapes.items():
        yield f"{name}_{size}_ms", 1e3 * seconds[name]
        yield f"{name}_{size}_tflops", training_flops_per_token(shape, context) * tokens / seconds[name] / 1e12
    yield f"tax_{size}", seconds["sparse"] / seconds["dense"]


def replay(place: Place) -> Figures:
    """A study's steps replayed beside the same one by one; then several runs of the smallest at once, on their streams.

    On a CPU the function is called that a GPU captures.
    """
    recipe, widths = small_recipe(place), (16,) if place.quick else WIDTHS
    yield "compile_seconds", place.ready([LADDER.shape(width, n) for width in widths for n in (0, 32)], recipe)
    for width in widths:
        for name, experts in (("dense", 0), ("sparse", 32)):
            shape = LADDER.shape(width, experts)
            began = time.perf_counter()
            replayed = replayed_by(shape, recipe, place.device)
            assert replayed is not None
            figures = _steps_of(replayed)
            yield f"{name}_{width}_first_seconds", time.perf_counter() - began
            yield f"{name}_{width}_captured", replayed.captured
            yield f"{name}_{width}_falls", float(figures[-1].loss < figures[0].loss)
            calls: dict[str, Callable[[], object]] = {
                "replayed": partial(_steps_of, replayed),
                "one_by_one": step_by(shape, recipe, place.device, 1),
            }
            seconds = place.seconds(calls, 0.2)
            yield f"{name}_{width}_replayed_ms", 1e3 * seconds["replayed"] / CHUNK
            yield f"{name}_{width}_host_ms", 1e3 * _host_seconds(replayed) / CHUNK
            yield f"{name}_{width}_one_by_one_ms", 1e3 * seconds["one_by_one"]
    made = [
        replayed_by(LADDER.shape(16 if place.quick else WIDTHS[0], 32), small_recipe(place), place.device)
        for _ in range(2 if place.quick else max(TOGETHER))
    ]
    runs = [run for run in made if run is not None]
    alone = 0.0
    for count in (1, 2) if place.quick else (1, *TOGETHER):
        seconds = place.seconds({"all": partial(take_all, runs[:count])}, 0.4)["all"]
        alone = alone or seconds
        yield f"streams_{count}_times_one", count * alone / seconds


def small_recipe(place: Place, number: int = 1) -> Recipe:
    """The recipe of a study's smallest steps, with so many times the batch."""
    dtype: Dtype = "bfloat16" if place.device == "cuda" else "float32"
    return Recipe(learning_rate=HARMLESS_RATE, steps=1000, batch=8 * number, context=128, dtype=dtype)


def _steps_of(replayed: Replayed) -> list[TakenFigures]:
    replayed.take(range(MIDDLE, MIDDLE + CHUNK))
    return replayed.read()


def _host_seconds(replayed: Replayed) -> float:
    """How long the host takes to give the device these steps; the least of three times."""
    spent = []
    for _ in range(3):
        began = time.perf_counter()
        replayed.take(range(MIDDLE, MIDDLE + CHUNK))
        spent.append(time.perf_counter() - began)
        replayed.read()
    return min(spent)


def take_all(runs: Sequence[Replayed]) -> None:
    """Steps of all runs at once, each on its stream; this waits for them."""
    for run in runs:
        run.take(range(MIDDLE, MIDDLE + CHUNK))
    for run in runs:
        run.read()


def small(place: Place) -> Figures:
    """Steps of a study's sizes, one by one."""
    for width in (16,) if place.quick else WIDTHS:
        for name, experts in (("dense", 0), ("sparse", 32)):
            call = step_by(LADDER.shape(width, experts), small_recipe(place), place.device, 1)
            yield f"{name}_{width}_ms", 1e3 * place.seconds({name: call}, 0.2)[name]


def study(place: Place, time_limit: str = "150s") -> Figures:
    """A whole study by time, or why it was refused; of one that is late, what it had measured and said by then."""
    seconds = "1s" if place.quick else time_limit  # one second is refused
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--time", seconds, "--device", place.device, "--out", folder, "--json"]
        command = [sys.executable, "-m", "sparsedial", "study", *flags]
        began = time.perf_counter()
        done = _within(min(LATEST * parse_seconds(time_limit), place.limit - ENDING), command)
        files = {name: Path(folder) / f"{name}.json" for name in ("profile", "study")}
        kept = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
        ended = len(list(Path(folder).glob("runs/*/run.json")))
    yield "wall_seconds", time.perf_counter() - began
    yield "accepted", int(done.returncode == 0)
    if "profile" in kept:
        yield "at_once", kept["profile"]["at_once"]
        yield "steps", [{name: row[name] for name in OF_STEPS} for row in kept["profile"]["rows"]]
    yield "said_at_once", [line for line in done.stderr.splitlines() if "at once" in line]
    yield "warnings", [line[:300] for line in done.stderr.splitlines() if "Warning" in line][:10]
    if done.returncode:
        yield "runs_ended", ended
        yield "late" if done.returncode == LATE else "refusal", done.stderr[-500:]
        return
    found = json.loads(done.stdout)
    yield "cells", found["cells"]
    yield "phases", kept["study"]["phases"]
    yield "verdict_seeds", kept["study"]["verdict_seeds"]
    yield "budgets_flops", found["budgets_flops"]


def _within(seconds: float, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A command that ended, or was ended after so many seconds."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as late:  # what it had written by then is bytes
        said = late.stderr.decode(errors="replace") if isinstance(late.stderr, bytes) else late.stderr or ""
        return subprocess.CompletedProcess(command, LATE, "", said)


def profile(place: Place) -> Figures:
    """What takes the time of a large sparse step."""
    shape, batch = step_shapes(place)["sparse"], 2 if place.quick else BATCHES["8k"]
    call = place.step(shape, batch, 32 if place.quick else STEP_CONTEXT, "bfloat16")
    for _ in range(3):
        call()
    yield "longest", [{"name": name[:80], "ms": ms, "count": count} for name, ms, count in _profiled(place, call)[:30]]
