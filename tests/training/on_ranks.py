"""Processes of one group, started for a test and ended with it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from sparsedial.training.ranks import Ranks

PATIENCE = 600  # seconds, for a group on a busy machine


def on_ranks(count: int, folder: Path, work: Callable[..., Any], *given: Any) -> list[Any]:
    """What `work` gives on each of so many ranks, called with them and with what is given."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_one, args=(rank, count, folder, work, given)) for rank in range(count)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(PATIENCE)
        assert [process.exitcode for process in processes] == [0] * count
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{count}-{rank}.pt", weights_only=False) for rank in range(count)]


def _one(rank: int, count: int, folder: Path, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder / f'meeting-{count}'}"
    distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=count, timeout=timedelta(seconds=PATIENCE)
    )
    try:
        group = distributed.group.WORLD
        assert group is not None
        torch.save(work(Ranks(group), *given), folder / f"{count}-{rank}.pt")
    finally:
        distributed.destroy_process_group()
