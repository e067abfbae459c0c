"""Resources that the GPU kernels use, from NVIDIA's compiler, without a GPU: `python -m benchmarks.gpu_resources`.

Triton compiles each kernel with each candidate's tiles for a named generation of NVIDIA's GPUs, in bfloat16. Printed:
registers of a thread, bytes of them that had to go to memory, bytes of shared memory, and whether the products are
tensor-core instructions on whole warp groups (wgmma), which alone reach an H100's rate. They show what cannot be
fast, not what is fast: times need a GPU (benchmarks/gpu.py).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)  # before Triton is imported: interpreted functions cannot be compiled

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sparsedial.kernels import triton_sparse
from sparsedial.kernels.triton_tiles import LARGE, SMALL, Tiles

KERNELS: dict[str, tuple[Any, dict[str, Any]]] = {  # each with the arguments that its callers fix
    "up": (triton_sparse._up_kernel, {}),
    "down": (triton_sparse._rows_kernel, {"GATED": True, "w_column_stride": 1}),
    "down_backward": (triton_sparse._down_backward_kernel, {}),
    "up_backward": (triton_sparse._rows_kernel, {"GATED": False, "w_depth_stride": 1}),
    "outer": (triton_sparse._outer_kernel, {"LEFT_BY_TOKEN": True, "RIGHT_BY_TOKEN": False}),
}
INDICES = ("row_of_place", "start_of_block", "expert_of_block", "ends")
SIZES = ("d_model", "width", "depth_size", "columns_size", "left_size", "right_size")
STRIDES = ("w_depth_stride", "w_column_stride")
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


def shipped(name: str, capability: int) -> list[Tiles]:
    """The tiles that a kernel has in the package for such a GPU, small layers' and large ones'."""
    return list(dict.fromkeys((SMALL[name], LARGE.get(capability // 10, SMALL)[name])))


def type_of(name: str) -> str:
    """An argument's type, as Triton writes it."""
    if name in INDICES:
        return "*i32"
    if name in (*SIZES, *STRIDES, *UNEVEN):
        return "i32"
    return "*fp32" if name == "dgate_parts" else "*bf16"


def resources(name: str, tiles: Tiles, capability: int) -> dict[str, Any]:
    """One kernel with one candidate's tiles, compiled for a GPU of this compute capability (90 is an H100)."""
    kernel, fixed = KERNELS[name]
    sizes = {"ROWS": tiles.rows, "COLUMNS": tiles.columns, "DEPTH": tiles.depth, "GROUP": triton_sparse.GROUP}
    constants = {**fixed, **sizes}
    arguments = list(enumerate(kernel.arg_names))
    source = ASTSource(
        kernel,
        {argument: "constexpr" if argument in constants else type_of(argument) for _, argument in arguments},
        {(i,): constants[argument] for i, argument in arguments if argument in constants},
        {(i,): [["tt.divisibility", 16]] for i, argument in arguments if argument not in (*constants, *UNEVEN)},
    )
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    used = usage(compiled.asm["cubin"])
    return {
        "kernel": name,
        "tiles": asdict(tiles),
        "registers": int(used["REG"]),
        "spilled_bytes": int(used["STACK"]),
        "shared_bytes": compiled.metadata.shared,
        "wgmma": "wgmma.mma_async" in compiled.asm["ptx"],
    }


def usage(binary: bytes) -> dict[str, str]:
    """The resources of a compiled kernel, from NVIDIA's `cuobjdump`."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        listed = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    return dict(re.findall(r"([A-Z]+):(\d+)", listed.stdout + listed.stderr))


def main() -> None:
    """Compile all candidates, or with `--few` the tiles that ship, and print a line each."""
    parser = argparse.ArgumentParser(description="registers and shared memory of the GPU kernels")
    parser.add_argument("--capability", type=int, default=90, help="compute capability times ten; 90 is an H100")
    parser.add_argument("--few", action="store_true", help="each kernel with the tiles that ship")
    parser.add_argument("--json", action="store_true", help="one object, and nothing else")
    options = parser.parse_args()
    rows = []
    for name in KERNELS:
        for tiles in (
            shipped(name, options.capability) if options.few else OUTER_TILES if name == "outer" else ROW_TILES
        ):
            rows.append(row := resources(name, tiles, options.capability))
            if not options.json:
                size = f"{tiles.rows} x {tiles.columns} x {tiles.depth}, {tiles.warps} warps, {tiles.stages} stages"
                print(
                    f"{name:<14} {size:<36} {row['registers']:4} registers, {row['spilled_bytes']:5} bytes spilled,"
                    f" {row['shared_bytes']:6} shared, {'wgmma' if row['wgmma'] else 'no wgmma'}"
                )
    if options.json:
        json.dump({"capability": options.capability, "rows": rows}, sys.stdout)


if __name__ == "__main__":
    main()
