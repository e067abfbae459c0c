"""Reading a checkpoint takes the model and its largest tensor; writing and copying one take their largest tensor."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from sparsedial.model.checkpoint import save_checkpoint
from tests.model.shapes import DENSE, SPARSE, shaken

SCRIPT = """
import sys
from pathlib import Path
import torch
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.writing import write_checkpoint

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

def measured(what, function, may):
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = peak()
    result = function()
    print(what, peak() - before, may(result), sep=",")
    return result

def copy(name):
    checkpoint = read_checkpoint(folder / name)
    write_checkpoint(folder / f"{name} again", checkpoint.shape, checkpoint.tensors, shard_bytes=20e6)
    return max(tensor.nbytes for tensor in checkpoint.tensors)

def sizes(model):
    return [tensor.nbytes for tensor in model.state_dict().values()]

folder = Path(sys.argv[1])
save_checkpoint(load(folder / "warm"), folder / "warm again")
for name, dtype in (("whole", torch.float32), ("shards", torch.float32), ("half", torch.bfloat16)):
    measured(f"copy {name}", lambda: copy(name), int)
    model = measured(f"load {name}", lambda: load(folder / name, dtype), lambda it: sum(sizes(it)) + max(sizes(it)))
    measured(f"save {name}", lambda: save_checkpoint(model, folder / "saved"), lambda _: max(sizes(model)))
    del model
"""

GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "100000"}  # glibc keeps freed tensors otherwise, now and then in pieces


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int]]:
    """What a process of its own took above what it had with everything imported, and what it may take, in bytes."""
    folder = tmp_path_factory.mktemp("memory")
    sizes = {"d_model": 256, "heads": 4, "kv_heads": 4, "head_dim": 64, "d_expert": 128, "experts": 32}
    model = shaken(replace(SPARSE, **sizes, vocab_size=30_000, tied_embeddings=False))
    save_checkpoint(shaken(DENSE), folder / "warm")
    save_checkpoint(model, folder / "whole")
    save_checkpoint(model, folder / "shards", shard_bytes=20e6)
    save_checkpoint(model.to(torch.bfloat16), folder / "half")
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | GIVEN_BACK)
    lines = (line.split(",") for line in answer.stdout.splitlines())
    return {what: (int(bytes), int(allowed)) for what, bytes, allowed in lines}


@pytest.mark.parametrize("folder", ["whole", "shards", "half"])
@pytest.mark.parametrize("what", ["load", "save", "copy"])
def test_no_more_memory_is_taken_than_is_needed(taken, what, folder):
    """One file and shards, in 32 and 16 bits."""
    bytes, allowed = taken[f"{what} {folder}"]
    assert bytes < allowed + 4e6  # 4 MB for Python's own objects; a tensor too many is 31, in half of them 15
