"""The files of a checkpoint are, byte for byte, those that earlier versions wrote.

`frozen.json` holds the first 16 digits of each file's SHA-256. `python -m tests.model.test_frozen` prints it anew, for
the day when a format is changed on purpose.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparsedial.model.checkpoint import empty_model, save_checkpoint
from sparsedial.model.weights import views_of
from sparsedial.shape.shape import Shape
from tests.model.shapes import FAMILIES, SPARSE, UNEQUAL

RECORD = Path(__file__).with_name("frozen.json")
SHAPES: dict[str, Shape] = {
    **FAMILIES,
    **{f"{name}, a token more ahead": replace(shape, mtp_layers=1) for name, shape in FAMILIES.items()},
    "own, biases": replace(FAMILIES["olmoe"], attention_bias=True),
    "own, a cap on logits": replace(SPARSE, logit_cap=20.0, top_p=0.7),
    "own, latent attention": replace(FAMILIES["deepseek_v3"], logit_cap=20.0),
    "own, layers that differ": UNEQUAL,
}


def written(shape: Shape, folder: Path, dtype: torch.dtype = torch.float32, shard_bytes: float = 4e9) -> dict[str, str]:
    """Digests of a folder whose weights count upwards, so that no number depends on a generator."""
    model, start = empty_model(shape, dtype), 0
    for view in views_of(model).values():
        values = torch.arange(start, start + view.numel()) % 251
        view.copy_((values / 64).view(view.shape))
        start += 7
    save_checkpoint(model, folder, shard_bytes=shard_bytes)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in sorted(folder.iterdir())}


CASES = {
    **{name: (shape, torch.float32, 4e9) for name, shape in SHAPES.items()},
    "glm4_moe, in bfloat16": (FAMILIES["glm4_moe"], torch.bfloat16, 4e9),
    "deepseek_v3, in shards": (FAMILIES["deepseek_v3"], torch.float32, 20_000),
    "deepseek_v3, in bfloat16 and shards": (replace(FAMILIES["deepseek_v3"], mtp_layers=1), torch.bfloat16, 9_000),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_is_written_as_before(tmp_path: Path, case):
    assert written(CASES[case][0], tmp_path / "c", *CASES[case][1:]) == json.loads(RECORD.read_text())[case]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        table = {name: written(case[0], Path(folder) / "c", *case[1:]) for name, case in CASES.items()}
    sys.stdout.write(json.dumps(table, indent=1) + "\n")
