"""Every Triton kernel that a training step launches, compiled for each kind of card: `python -m
benchmarks.gpu_step_resources`, with `triton` installed and no GPU. The interpreter, in which tests run kernels, accepts
what a compiler refuses. With `--study`: how many a study on a GPU compiles, and how long that takes on one core.

Steps run on tensors without values, as in `benchmarks.gpu_counts`; a kernel is compiled for the types and constants of
its launch, and for what is known of its numbers: which are 1, and which are multiples of 16.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

if __name__ == "__main__":
    os.environ.pop("TRITON_INTERPRET", None)  # before Triton is imported: interpreted functions cannot be compiled

import torch
import triton
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.compiler import ASTSource
from triton.tools.tensor_descriptor import TensorDescriptor

from benchmarks import gpu_counts
from benchmarks.gpu_resources import TARGETS, amd_usage, card_of, shared_bytes, usage
from sparsedial.records.recipe import Dtype
from sparsedial.runs.ahead import launch_all
from sparsedial.runs.timed import study_recipe
from sparsedial.shape.ladder import RUNGS, Ladder
from sparsedial.shape.shape import Shape

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float64: "fp64", torch.int32: "i32", torch.int64: "i64"}
TYPES = {**{dtype: f"*{name}" for dtype, name in NAMES.items()}, None: "*i64"}
CAPABILITY, TARGET, ON_TARGET = (9, 0), "90", "an H100 or H200"  # of the study
BATCH, CONTEXT, EXPERTS = 64, 256, (0, 8, 16, 32)  # a default study's there
WIDTHS = tuple(rung for rung in RUNGS if 32 <= rung <= 384)  # that its grids of minutes have, or may come to have


@dataclass(frozen=True)
class Launch:
    """A kernel with what distinguishes one compilation of it from another."""

    kernel: Any
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    sixteens: tuple[str, ...]  # arguments that are multiples of 16; addresses always are
    warps: int
    stages: int

    @property
    def name(self) -> str:
        return self.kernel.__name__.strip("_")


def type_of(value: Any) -> str:
    """An argument's type, as Triton writes it."""
    if isinstance(value, TensorDescriptor):
        return f"tensordesc<{NAMES[value.base.dtype]}{list(value.block_shape)}>"
    if value is None or isinstance(value, Tensor):
        return TYPES[None if value is None else value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def launch_of(kernel: Any, arguments: Iterable[Any], warps: int, stages: int, constants: dict[str, Any]) -> Launch:
    """What Triton compiles for such a launch."""
    names = [name for name in kernel.arg_names if name not in constants]
    signature, fixed, sixteens = [], dict(constants), []
    plain = _not_specialised(kernel)
    for name, value in zip(names, arguments, strict=True):
        kind = type_of(value)
        if kind == "i32" and name not in plain and value == 1:
            fixed[name] = 1
            continue
        signature.append((name, kind))
        if kind[0] == "*" or (kind == "i32" and name not in plain and value % 16 == 0):
            sixteens.append(name)
    return Launch(kernel, tuple(signature), tuple(fixed.items()), tuple(sixteens), warps, stages)


def _not_specialised(kernel: Any) -> tuple[str, ...]:
    """Numbers for whose values a kernel is not compiled anew; an interpreted one keeps them among its options."""
    named = kernel.kwargs.get("do_not_specialize") if hasattr(kernel, "kwargs") else kernel.do_not_specialize
    return tuple(named or ())


def recorder(found: Counter[Launch]) -> Callable[..., None]:
    """A function that takes the place of a launch, and counts it."""

    def launch(kernel: Any, grid: Any, *arguments: Any, warps: int = 4, stages: int = 3, **constants: Any) -> None:
        found[launch_of(kernel, arguments, warps, stages, constants)] += 1

    return launch


def launches(experts: int, dtype: Dtype, top_k: int | None = None, **changes: Any) -> list[Launch]:
    """What one step of a small model launches, each once; `changes` are of its shape."""
    found: Counter[Launch] = Counter()
    shape = replace(gpu_counts.LADDER.shape(128, experts), vocab_size=4096, **changes)
    gpu_counts.counts_of(shape, dtype, top_k=top_k, launch=recorder(found))
    return list(found)


def of_study(shapes: Iterable[Shape], batch: int = BATCH, context: int = CONTEXT) -> Counter[Launch]:
    """What runs of these shapes launch in a step and in scoring, and how often."""
    found: Counter[Launch] = Counter()
    recipe = study_recipe(batch, context, "cuda")
    with gpu_counts.as_on_a_gpu(recorder(found), CAPABILITY), FakeTensorMode(allow_non_fake_inputs=True):
        for shape in shapes:
            launch_all(shape, recipe, None, None, "cpu")
    return found


def compiled(launch: Launch, target: str) -> Any:
    """The kernel, compiled for a card."""
    constants = dict(launch.constants)
    types = {**dict(launch.signature), **dict.fromkeys(constants, "constexpr")}
    places = {name: index for index, name in enumerate(launch.kernel.arg_names)}
    source = ASTSource(
        launch.kernel,
        {name: types[name] for name in launch.kernel.arg_names},
        {(places[name],): value for name, value in constants.items()},
        {(places[name],): [["tt.divisibility", 16]] for name in launch.sixteens},
    )
    return triton.compile(
        source, target=card_of(target), options={"num_warps": launch.warps, "num_stages": launch.stages}
    )


def resources(launch: Launch, target: str) -> tuple[int, int, int]:
    """Registers of a thread, bytes of them in memory, and bytes of shared memory."""
    made = compiled(launch, target)
    used = usage(made.asm["cubin"]) if target.isdigit() else amd_usage(made.asm["amdgcn"])
    return (*used, made.metadata.shared)


def print_study() -> None:
    """Print how many kernels a study compiles, and the seconds of each kind on one core."""
    ladder = Ladder(vocab_size=256, context=CONTEXT)
    found = of_study(ladder.shape(width, experts) for width in WIDTHS for experts in EXPERTS)
    seconds: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder  # an empty one
        for launch in found:
            began = sum(os.times()[:4])  # with the processes that it starts
            compiled(launch, TARGET)
            seconds[launch.name].append(sum(os.times()[:4]) - began)
    for name, spent in sorted(seconds.items(), key=lambda item: -sum(item[1])):
        print(f"{name:<28} compiled {len(spent):3} times, {sum(spent):5.1f} s")
    count, spent = len(found), sum(map(sum, seconds.values()))
    print(f"{count} kernels for {found.total()} launches of {len(WIDTHS) * len(EXPERTS)} models, {spent:.0f} s")


def main() -> None:
    """Print a line for each kernel and card; an error names a kernel that does not compile or fit."""
    parser = argparse.ArgumentParser(description="registers and shared memory of a training step's kernels")
    parser.add_argument("--targets", default=",".join(TARGETS), help="compute capabilities times ten, and gfx942")
    parser.add_argument("--kernels", default="", help="only those with these letters in their name")
    parser.add_argument("--study", action="store_true", help=f"what a study on {ON_TARGET} compiles, instead")
    options = parser.parse_args()
    if options.study:
        print_study()
        return
    of_steps = [launches(0, "bfloat16"), launches(32, "bfloat16"), launches(32, "float32"), launches(32, "bfloat16", 1)]
    for name, changes in gpu_counts.LIKE.items():
        heads = gpu_counts.LADDER.shape(128, 32).heads
        more = {"kv_heads": heads} if name == "as OLMoE" else {}
        of_steps += [launches(experts, "bfloat16", **{**changes, **more}) for experts in (32, 256)]
    for launch in dict.fromkeys(each for step in of_steps for each in step if options.kernels in each.name):
        for target in options.targets.split(","):
            registers, spilled, shared = resources(launch, target)
            assert shared <= shared_bytes(target), (launch, target)
            kinds = "/".join(dict.fromkeys(kind for _, kind in launch.signature if kind[0] == "*"))
            words = f"{registers:4} registers, {spilled:4} bytes spilled, {shared:6} shared"
            print(f"{target:<6} {launch.name:<28} {words}  {kinds}", flush=True)


if __name__ == "__main__":
    main()
