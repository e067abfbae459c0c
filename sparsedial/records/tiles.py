"""The tiles that were fastest on a card, as `profile --tune` writes them beside the profile."""

from __future__ import annotations

from sparsedial.records.record import Record

TILES_FILE = "tiles.json"


class TileSizes(Record, frozen=True, kw_only=True):
    """Sizes of a kernel's blocks and how a GPU runs them; and the time of a layer, forward and backward, with them."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    layer_seconds: float


class TilesFile(Record, frozen=True, kw_only=True):
    """The fastest tiles of each kernel of the experts, in bfloat16."""

    gpu: str
    triton: str  # its version
    kernels: dict[str, TileSizes]
    tried: int  # layers with other tiles
