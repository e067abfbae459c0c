"""The kind of device to train on, and the number of CPU threads."""

from __future__ import annotations

import os
from typing import Any, cast

from sparsedial.errors import UserError
from sparsedial.machine.card import BFLOAT16, Card
from sparsedial.machine.hardware import usable_cores
from sparsedial.records.recipe import Dtype

MOST_THREADS = 16  # per core
# Work queues of a GPU, at most 32. With the driver's eight, streams of runs at once would share some, and wait there.
QUEUES = "CUDA_DEVICE_MAX_CONNECTIONS", "32"


def pick_device(wanted: str) -> str:
    """The kind of device to train on; `auto` is a GPU if PyTorch sees one.

    Raises: UserError for an unknown device, or a missing GPU.
    """
    import torch

    if wanted != "cpu":
        os.environ.setdefault(*QUEUES)  # before the driver starts
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted not in ("cpu", "cuda"):
        raise UserError(f"no device named '{wanted}'", hint="cpu or cuda", field="device")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch sees no GPU on this machine", hint="cpu", field="device")
    return wanted


def pick_threads(wanted: int | None) -> int:
    """CPU threads to train with: the wanted number, or one per core.

    Raises: UserError for less than one thread, or far more threads than cores.
    """
    cores = usable_cores()
    if wanted is not None and not 1 <= wanted <= MOST_THREADS * cores:
        raise UserError(
            f"{wanted} lies outside 1..{MOST_THREADS * cores}", hint=f"this machine has {cores} cores", field="threads"
        )
    return wanted or cores


def training_dtype(device: str) -> Dtype:
    """The default data type of training: bfloat16 on a GPU, but float32 on NVIDIA's that cannot multiply it."""
    if device != "cuda":
        return "float32"
    import torch

    old = torch.cuda.is_available() and not torch.version.hip and torch.cuda.get_device_capability() < BFLOAT16
    return "float32" if old else "bfloat16"


def card_of(device: str) -> Card | None:
    """The GPU that runs use; None on a CPU."""
    if device != "cuda":
        return None
    import torch

    found = cast(Any, torch.cuda).get_device_properties(torch.cuda.current_device())
    return Card(
        memory_bytes=found.total_memory,
        processors=found.multi_processor_count,
        capability=None if torch.version.hip else (found.major, found.minor),  # of AMD's these mean something else
    )
