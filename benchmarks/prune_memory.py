"""Memory of `prune --layer-by-layer`: `python -m benchmarks.prune_memory [GB [METHOD]]`, by default of 4 GB by reap.

The checkpoint has random weights in float32 and is written tensor by tensor. A process of its own prunes it, and
another one only imports what that needs; recorded is how much more memory the first held at most, by VmHWM. Where the
system allows it, it runs under a limit of 1 GB above what the bare import has mapped, and the same command without
`--layer-by-layer` is shown to fail under that. Writes benchmarks/records/prune_memory.json, where runs by other methods
stay.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.keeping import keep
from benchmarks.memory_limit import GLIBC, STATUS, no_limit_here, status_bytes, under_limit
from sparsedial.model.stream import NamedTensor
from sparsedial.model.writing import write_checkpoint
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.shape import Shape
from sparsedial.shape.tensors import Name, Size, tensor_sizes
from sparsedial.store import read_json
from sparsedial.text.tokenizer import byte_tokenizer

RECORD = Path(__file__).parent / "records" / "prune_memory.json"
LETTERS = b" etaoinshrdlcumfpg"
AIM_BYTES = 1e9  # above a bare import
SHAPE = Shape(
    layers=1, d_model=1024, heads=8, kv_heads=8, head_dim=128, d_ff=0, vocab_size=256, context=256, experts=32, top_k=2,
    d_expert=512, qk_norm="head",
)  # fmt: skip
PEAK = "from sparsedial.machine.hardware import peak_process_bytes; print(peak_process_bytes())"
IMPORTS = "import torch, sparsedial.verbs.prune.answer"


def main() -> None:
    """Write the checkpoint, prune it, and write the record."""
    wanted = float(sys.argv[1]) * 1e9 if len(sys.argv) > 1 else 4e9
    method = sys.argv[2] if len(sys.argv) > 2 else "reap"
    layer_bytes = 4 * (total_parameters(replace(SHAPE, layers=2)) - total_parameters(SHAPE))
    shape = replace(SHAPE, layers=round(wanted / layer_bytes))
    why_not = no_limit_here()
    bare_data = None if why_not else status_bytes(_python(f"{IMPORTS}; {STATUS}"), "VmData")
    limit = bare_data and bare_data + int(AIM_BYTES)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "whole")
        write_checkpoint(folder, shape, _drawn(shape), byte_tokenizer())
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        whole = limit and _fails(folder, Path(work, "in memory"), method, limit)
        peak_bytes, seconds = _pruned(folder, Path(work, "out"), method, limit)
    bare_bytes = int(_python(f"{IMPORTS}; {PEAK}"))
    run = {
        "checkpoint_bytes": size,
        "layers": shape.layers,
        "peak_bytes": peak_bytes,
        "bare_import_bytes": bare_bytes,
        "above_bare_bytes": peak_bytes - bare_bytes,
        "wall_seconds": seconds,
        "bare_import_data_bytes": bare_data,
        "data_limit_bytes": limit,
        "data_limit_reason": why_not,
        "data_limit_glibc": GLIBC,
        "whole_model_under_limit": whole,
    }
    before = read_json(RECORD)["runs"] if RECORD.exists() else {}
    record = {"layer_bytes": layer_bytes, "aim_bytes": AIM_BYTES, "runs": {**before, method: run}}
    keep(RECORD, " ".join(["python -m benchmarks.prune_memory", *sys.argv[1:]]), record)
    print(json.dumps(record, indent=1))


def _python(code: str) -> str:
    return under_limit([sys.executable, "-c", code], None).stdout


def _command(folder: Path, out: Path, method: str) -> list[str]:
    words = ["prune", str(folder), "--method", method, "--keep", "0.5", "--calibrate", "README.md,docs"]
    words += ["--calibration-tokens", "4096", "--scored-tokens", "1024", "--out", str(out), "--json"]
    return [sys.executable, "-m", "sparsedial", *words]


def _pruned(folder: Path, out: Path, method: str, limit: int | None) -> tuple[int, float]:
    """The most bytes that a process held which pruned a checkpoint by a method under a limit, and its seconds."""
    done = under_limit([*_command(folder, out, method), "--layer-by-layer"], limit)
    if done.returncode:
        raise SystemExit(done.stderr)
    answer = json.loads(done.stdout)
    return answer["peak_process_bytes"], answer["wall_seconds"]


def _fails(folder: Path, out: Path, method: str, limit: int) -> str:
    """How the same command fails that holds all layers: the last line of its errors."""
    done = under_limit(_command(folder, out, method), limit)
    assert done.returncode, "the limit does not bite"
    return done.stderr.strip().splitlines()[-1]


def _drawn(shape: Shape) -> Iterator[NamedTensor]:
    """Random weights, each drawn when it is written. The head prefers letters, so that the model knows some text."""
    for number, (name, size) in enumerate(tensor_sizes(shape).items()):

        def values(number: int = number, name: Name = name, size: Size = size) -> torch.Tensor:
            if len(size) == 1:
                return torch.ones(size)
            if name.part == "unembedding":
                return torch.zeros(size).index_fill(0, torch.tensor(list(LETTERS)), 0.002)
            drawn = 0.01 * torch.randn(size, generator=torch.Generator().manual_seed(number))
            return drawn + 0.02 if name.part == "embedding" else drawn

        yield NamedTensor(name=name, size=size, dtype=torch.float32, origin="drawn", values=values)


if __name__ == "__main__":
    main()
