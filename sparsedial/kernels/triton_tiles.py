"""Tile sizes of the Triton kernels: which are tried, how the fastest are chosen, and where they are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.store import write_atomically


@dataclass(frozen=True)
class Tiles:
    """Sizes of a kernel's blocks: rows, columns, depth; and how a GPU runs them."""

    rows: int = 64
    columns: int = 64
    depth: int = 32
    warps: int = 4
    stages: int = 3


ROW_KERNELS = ("up", "down", "down_backward", "up_backward")  # all use the same blocks of rows
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
Choice = dict[str, Tiles]  # of each of ROW_KERNELS, and "outer"


def alike(tiles: Tiles) -> Choice:
    """The same for every kernel."""
    return dict.fromkeys((*ROW_KERNELS, "outer"), tiles)


def choose(milliseconds: Callable[[Choice], float]) -> Choice:
    """The fastest tiles: for each number of rows in a block, kernel by kernel, the others with their tiles so far."""
    tried = []
    for rows in sorted({tiles.rows for tiles in ROW_TILES}):
        best = alike(Tiles(rows=rows))
        for name in best:
            candidates = OUTER_TILES if name == "outer" else [tiles for tiles in ROW_TILES if tiles.rows == rows]
            best[name] = min(candidates, key=lambda tiles, name=name, best=best: milliseconds({**best, name: tiles}))
        tried.append(best)
    return min(tried, key=milliseconds)


@dataclass(frozen=True)
class Tuned:
    """What was measured: the fastest tiles, and whether they beat PyTorch's grouped products."""

    tiles: Choice
    wins: bool


VERSION = 2  # of the kernels and of what is kept: raised when either changes
_known: dict[str, Tuned] = {}


def tuning_file() -> Path:
    """Where tuned tiles are kept between processes."""
    home = os.environ.get("SPARSEDIAL_CACHE") or Path.home() / ".cache" / "sparsedial"
    return Path(home) / f"triton_tiles_{VERSION}.json"


def kept(key: str, tune: Callable[[], Tuned]) -> Tuned:
    """What `tune` measured for this key: now, earlier in this process, or in another process."""
    if key not in _known:
        found = _read()
        if key not in found:
            found[key] = asdict(tune())
            _write(found)
        tiles = {name: Tiles(**values) for name, values in found[key]["tiles"].items()}
        _known[key] = Tuned(tiles, found[key]["wins"])
    return _known[key]


def _read() -> dict[str, Any]:
    try:
        return json.loads(tuning_file().read_text())
    except (OSError, ValueError):
        return {}


def _write(found: dict[str, Any]) -> None:
    try:
        write_atomically(tuning_file(), json.dumps(found, indent=1).encode())
    except UserError:
        return  # a folder that cannot be written: tuned again next time
