"""Resources that the GPU kernels use, from NVIDIA's compiler, without a GPU: `python -m benchmarks.gpu_resources`.

Triton compiles each kernel with the tiles that ship, or with each candidate's, for generations of NVIDIA's GPUs and
for AMD's MI300. Printed: registers of a thread, bytes of them that had to go to memory, bytes of shared memory, and the
products' instruction: those of whole warp groups (wgmma, tcgen05) alone reach the rate of an H100 or B200. They show
what cannot be fast, not what is fast: times need a GPU (benchmarks/gpu.py).
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ.pop("TRITON_INTERPRET", None)  # before Triton is imported: interpreted functions cannot be compiled

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sparsedial.kernels import triton_sparse
from sparsedial.kernels.triton_descriptors import LEAST_CAPABILITY, LEAST_ROWS
from sparsedial.kernels.triton_tiles import SHARED_BYTES, SMALL_FLOPS, Tiles, candidates, tiles_for

KERNELS: dict[str, tuple[Any, dict[str, Any], str | None]] = {  # each with what its callers fix, and its weights
    "up": (triton_sparse._up_kernel, {}, "w_in"),
    "down": (triton_sparse._rows_kernel, {"GATED": True, "TURNED": False}, "w"),
    "down_backward": (triton_sparse._down_backward_kernel, {}, "w_out"),
    "up_backward": (triton_sparse._rows_kernel, {"GATED": False, "TURNED": True}, "w"),
    "outer": (triton_sparse._outer_kernel, {"LEFT_BY_TOKEN": True, "RIGHT_BY_TOKEN": False}, None),
}
TURNED = ("down_backward", "up_backward")  # their weights lie [columns, depth]
TARGETS = ("80", "89", "90", "100", "120", "gfx942")  # the last is AMD's MI300
AMD_SHARED_BYTES = 65536  # Source: AMD CDNA 3 white paper, local data share
INDICES = ("row_of_place", "start_of_block", "expert_of_block", "ends")
SIZES = ("d_model", "width", "depth_size", "columns_size", "left_size", "right_size")
INSTRUCTIONS = ("tcgen05.mma", "wgmma.mma_async", "mma.sync", "v_mfma", "v_wmma")  # products of tensor cores
UNEVEN = ("top_k", "parts")  # numbers too, but not known to be multiples of sixteen
ROW_TILES = tuple(
    Tiles(*sizes)
    for sizes in (
        (64, 64, 32, 4, 3),
        (64, 64, 64, 4, 4),
        (64, 128, 32, 4, 3),
        (64, 128, 64, 4, 4),
        (64, 256, 64, 8, 3),
        (128, 64, 32, 4, 3),
        (128, 64, 64, 4, 4),
        (128, 128, 64, 8, 3),
        (128, 128, 64, 8, 4),
        (128, 256, 64, 8, 3),
    )
)
# The index of a row is loaded before the row. Five stages leave two between loading and multiplying, three leave one.
OUTER_TILES = tuple(
    Tiles(*sizes)
    for sizes in (
        (64, 64, 32, 4, 3),
        (64, 64, 64, 4, 5),
        (128, 128, 32, 8, 5),
        (128, 128, 64, 8, 3),
        (128, 128, 64, 8, 5),
        (128, 256, 64, 8, 5),
    )
)


def capability_of(target: str) -> tuple[int, int] | None:
    """The compute capability of a target; None for AMD's."""
    return (int(target[:-1]), int(target[-1])) if target.isdigit() else None


def card_of(target: str) -> GPUTarget:
    """The target as Triton names it; a wave of AMD's has 64 threads, from RDNA (gfx10) on 32."""
    if target.isdigit():
        return GPUTarget("cuda", int(target), 32)
    return GPUTarget("hip", target, 32 if target.startswith("gfx1") else 64)


def shared_bytes(target: str) -> int:
    """Shared memory that a block may ask for."""
    capability = capability_of(target)
    return SHARED_BYTES[capability] if capability else AMD_SHARED_BYTES


@dataclass(frozen=True)
class Candidate:
    """One kernel as it is compiled."""

    kernel: str
    target: str
    tiles: Tiles
    dtype: str = "bf16"
    described: bool = False  # its weights are read by descriptor


def shipped(target: str) -> list[Candidate]:
    """All that the package may launch on such a GPU: of small layers and large ones, in both types, with descriptors
    and without, and what tuning may choose.
    """
    found = []
    for dtype, flops in product(("bf16", "fp32"), (0.0, SMALL_FLOPS)):
        types = torch.float32 if dtype == "fp32" else torch.bfloat16
        choice = tiles_for(capability_of(target), flops, types)
        for name, tiles in [(name, other) for name, own in choice.items() for other in candidates(own)]:
            found.append(Candidate(name, target, tiles, dtype))
            new = (capability_of(target) or (0, 0))[0] >= LEAST_CAPABILITY and tiles.rows >= LEAST_ROWS
            if new and KERNELS[name][2]:
                found.append(replace(found[-1], described=True))
    return list(dict.fromkeys(found))


def type_of(name: str, candidate: Candidate) -> str:
    """An argument's type, as Triton writes it."""
    if name in INDICES:
        return "*i32"
    if name in (*SIZES, *UNEVEN):
        return "i32"
    if candidate.described and name == KERNELS[candidate.kernel][2]:
        block = candidate.tiles.depth, candidate.tiles.columns
        rows, columns = reversed(block) if candidate.kernel in TURNED else block
        return f"tensordesc<{candidate.dtype}[{rows}, {columns}]>"
    return "*fp32" if name == "dgate_parts" else f"*{candidate.dtype}"


def resources(candidate: Candidate) -> dict[str, Any]:
    """One kernel with one candidate's tiles, compiled for its target."""
    tiles, (kernel, fixed, weights) = candidate.tiles, KERNELS[candidate.kernel]
    sizes = {"ROWS": tiles.rows, "COLUMNS": tiles.columns, "DEPTH": tiles.depth, "GROUP": triton_sparse.GROUP}
    constants = {**fixed, **sizes, **({"DESCRIBED": candidate.described} if weights else {})}
    arguments = list(enumerate(kernel.arg_names))
    aligned = [
        index
        for index, name in arguments
        if name not in (*constants, *UNEVEN) and not (candidate.described and name == weights)
    ]
    source = ASTSource(
        kernel,
        {name: "constexpr" if name in constants else type_of(name, candidate) for _, name in arguments},
        {(index,): constants[name] for index, name in arguments if name in constants},
        {(index,): [["tt.divisibility", 16]] for index in aligned},
    )
    nvidia = candidate.target.isdigit()
    target = card_of(candidate.target)
    compiled = triton.compile(source, target=target, options={"num_warps": tiles.warps, "num_stages": tiles.stages})
    text = compiled.asm["ptx" if nvidia else "amdgcn"]
    registers, spilled = usage(compiled.asm["cubin"]) if nvidia else amd_usage(text)
    return {
        **asdict(candidate),
        "registers": registers,
        "spilled_bytes": spilled,
        "shared_bytes": compiled.metadata.shared,
        "instruction": next((name for name in INSTRUCTIONS if name in text), None),
        "bulk_loads": "cp.async.bulk.tensor" in text,
    }


def usage(binary: bytes) -> tuple[int, int]:
    """Registers of a thread and bytes of them in memory, of a compiled kernel, from NVIDIA's `cuobjdump`."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        listed = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    used = dict(re.findall(r"([A-Z]+):(\d+)", listed.stdout + listed.stderr))
    return int(used["REG"]), int(used["STACK"])


def amd_usage(text: str) -> tuple[int, int]:
    """The same from the assembly for AMD's."""
    used = dict(re.findall(r"\.(vgpr_count|vgpr_spill_count): +(\d+)", text))
    return int(used["vgpr_count"]), 4 * int(used["vgpr_spill_count"])


def digest() -> str:
    """What the kernels are: a record of other ones says nothing about these."""
    tree = ast.parse(Path(str(triton_sparse.__file__)).read_text())
    kernels = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list]
    return hashlib.sha256("".join(map(ast.unparse, kernels)).encode()).hexdigest()[:16]


def line(row: dict[str, Any]) -> str:
    """A row in words."""
    tiles = Tiles(**row["tiles"])
    size = f"{tiles.rows} x {tiles.columns} x {tiles.depth}, {tiles.warps} warps, {tiles.stages} stages"
    by = "descriptor" if row["described"] else ""
    return (
        f"{row['target']:<6} {row['kernel']:<14} {row['dtype']} {size:<36} {by:<10} {row['registers']:4} registers,"
        f" {row['spilled_bytes']:5} bytes spilled, {row['shared_bytes']:6} shared, {row['instruction']}"
    )


def trial(target: str) -> list[Candidate]:
    """Each kernel with all tiles that might suit it, in bfloat16."""
    described = (capability_of(target) or (0, 0))[0] >= LEAST_CAPABILITY
    tried = [(name, tiles) for name in KERNELS for tiles in (OUTER_TILES if name == "outer" else ROW_TILES)]
    return [Candidate(name, target, tiles, "bf16", described and bool(KERNELS[name][2])) for name, tiles in tried]


def main() -> None:
    """Compile all candidates for a target, or with `--few` what ships for every one, and print a line each."""
    parser = argparse.ArgumentParser(description="registers and shared memory of the GPU kernels")
    parser.add_argument("--target", help="compute capability times ten, 90 is an H100; or gfx942, AMD's MI300")
    parser.add_argument("--few", action="store_true", help="each kernel with the tiles that ship")
    parser.add_argument("--json", action="store_true", help="one object, and nothing else; the record of --few")
    options = parser.parse_args()
    rows = []
    for target in TARGETS if options.target is None else (options.target,):
        for candidate in shipped(target) if options.few else trial(target):
            rows.append(row := resources(candidate))
            if not options.json:
                print(line(row), flush=True)
    if options.json:
        record = {"kernels": digest(), "triton": triton.__version__, "rows": rows}
        print(json.dumps(record).replace('{"kernel":', '\n{"kernel":'))


if __name__ == "__main__":
    main()
