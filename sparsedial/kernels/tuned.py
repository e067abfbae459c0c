"""Tiles that `profile --tune` found on this card, which take the place of the table's in large layers."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch

from sparsedial.errors import UserError
from sparsedial.kernels.triton_tiles import Choice, Tiles
from sparsedial.records.record import read
from sparsedial.records.tiles import TILES_FILE, TilesFile

NAMED = "SPARSEDIAL_TILES"  # the file; without it, the one in the working folder


@cache
def tuned_tiles(device: torch.device) -> Choice | None:
    """The tuned tiles for a device; None without a file, or with one of another card or version of Triton. Read once.

    Raises: UserError for a file that is named and missing, or that holds no tiles.
    """
    named = os.environ.get(NAMED)
    path = Path(named or TILES_FILE)
    if not path.is_file():
        if named:
            raise UserError(f"{NAMED}={named} is no file", hint="profile --tune writes one")
        return None
    import triton  # pyright: ignore[reportMissingImports]

    found = read(path, TilesFile)
    if (found.gpu, found.triton) != (torch.cuda.get_device_name(device), triton.__version__):
        return None
    return {
        name: Tiles(each.rows, each.columns, each.depth, each.warps, each.stages)
        for name, each in found.kernels.items()
    }
