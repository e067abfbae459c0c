"""The state of an unfinished run on disk: whole and verified, or not there."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from sparsedial.errors import UserError
from sparsedial.model.transformer import Transformer
from sparsedial.store import read_json, write_atomically, write_json
from sparsedial.training.loop import restore_state, training_state

FOLDER = "unfinished"


def save_state(
    folder: Path, run_hash: str, model: Transformer, optimizer: torch.optim.Optimizer, progress: dict[str, Any]
) -> None:
    """Keep everything that the next step depends on; `progress` holds the driver's own numbers, `next_step` among them.

    The tensors come first under a name of their own, then the small file that names them and their digest: a kill in
    between leaves the state before.
    """
    data = save_tensors(
        {name: tensor.detach().cpu().contiguous() for name, tensor in training_state(model, optimizer).items()}
    )
    home = folder / FOLDER
    name = f"step-{progress['next_step']}.safetensors"
    write_atomically(home / name, data)
    sha256 = hashlib.sha256(data).hexdigest()
    write_json(home / "state.json", {"hash": run_hash, "tensors": name, "sha256": sha256, **progress})
    for old in home.glob("step-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_state(
    folder: Path, run_hash: str, model: Transformer, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Bring model and optimizer back to where `save_state` left them; gives the driver's numbers.

    None where there is no state of this run, or one that was cut short or edited: the run then starts anew.
    """
    home = folder / FOLDER
    try:
        progress = read_json(home / "state.json")
        data = (home / progress["tensors"]).read_bytes()
    except (UserError, OSError):
        return None
    if progress["hash"] != run_hash or hashlib.sha256(data).hexdigest() != progress["sha256"]:
        return None
    restore_state(model, optimizer, load_tensors(data))
    return progress


def forget_state(folder: Path) -> None:
    """Drop the state of a run that has ended."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
