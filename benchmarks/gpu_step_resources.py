"""Every Triton kernel that a training step launches, compiled for each kind of card: `python -m
benchmarks.gpu_step_resources`, with `triton` installed and no GPU. The interpreter, in which tests run kernels, accepts
what a compiler refuses.

The step runs on tensors without values, as in `benchmarks.gpu_counts`; a kernel is compiled for the types and constants
of its launch.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from typing import Any

if __name__ == "__main__":
    os.environ.pop("TRITON_INTERPRET", None)  # before Triton is imported: interpreted functions cannot be compiled

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks import gpu_counts
from benchmarks.gpu_resources import TARGETS, amd_usage, shared_bytes, usage
from sparsedial.records.recipe import Dtype

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int32: "*i32", torch.int64: "*i64", None: "*i64"}


@dataclass(frozen=True)
class Launch:
    """A kernel with what distinguishes one compilation of it from another."""

    kernel: Any
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    warps: int

    @property
    def name(self) -> str:
        return self.kernel.__name__.strip("_")


def type_of(value: Any) -> str:
    """An argument's type, as Triton writes it."""
    if value is None or isinstance(value, Tensor):
        return TYPES[None if value is None else value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def launches(experts: int, dtype: Dtype, top_k: int | None = None, **changes: Any) -> list[Launch]:
    """What one step of a small model launches, each once; `changes` are of its shape."""
    found: dict[Launch, None] = {}

    def launch(kernel: Any, grid: Any, *arguments: Any, warps: int = 4, stages: int = 3, **constants: Any) -> None:
        names = [name for name in kernel.arg_names if name not in constants]
        signature = tuple((name, type_of(value)) for name, value in zip(names, arguments, strict=True))
        found[Launch(kernel, signature, tuple(constants.items()), warps)] = None

    shape = replace(gpu_counts.LADDER.shape(128, experts), vocab_size=4096, **changes)
    gpu_counts.counts_of(shape, dtype, top_k=top_k, launch=launch)
    return list(found)


def resources(launch: Launch, target: str) -> tuple[int, int, int]:
    """Registers of a thread, bytes of them in memory, and bytes of shared memory."""
    constants = dict(launch.constants)
    types = {**dict(launch.signature), **dict.fromkeys(constants, "constexpr")}
    places = {name: index for index, name in enumerate(launch.kernel.arg_names)}
    source = ASTSource(
        launch.kernel,
        {name: types[name] for name in launch.kernel.arg_names},
        {(places[name],): value for name, value in constants.items()},
        {(places[name],): [["tt.divisibility", 16]] for name, kind in launch.signature if kind[0] == "*"},
    )
    nvidia = target.isdigit()
    card = GPUTarget("cuda", int(target), 32) if nvidia else GPUTarget("hip", target, 64)
    compiled = triton.compile(source, target=card, options={"num_warps": launch.warps})
    used = usage(compiled.asm["cubin"]) if nvidia else amd_usage(compiled.asm["amdgcn"])
    return (*used, compiled.metadata.shared)


def main() -> None:
    """Print a line for each kernel and card; an error names a kernel that does not compile or fit."""
    parser = argparse.ArgumentParser(description="registers and shared memory of a training step's kernels")
    parser.add_argument("--targets", default=",".join(TARGETS), help="compute capabilities times ten, and gfx942")
    parser.add_argument("--kernels", default="", help="only those with these letters in their name")
    options = parser.parse_args()
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
