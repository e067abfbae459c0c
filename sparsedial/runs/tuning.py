"""The experts' tiles on this card: each kernel's few candidates timed in turn, outside any training step.

T tokens, D d_model, E experts, K chosen, F d_expert.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from sparsedial.kernels.triton_tiles import LARGE, Choice, Tiles, candidates, capability_of
from sparsedial.records.tiles import TilesFile, TileSizes

TOKENS, D_MODEL, EXPERTS, TOP_K, D_EXPERT = 8192, 2048, 64, 8, 1024  # OLMoE's layer
WARM_UP, TIMES = 2, 3


def fastest(table: Choice, seconds_of: Callable[[Choice], float]) -> tuple[dict[str, tuple[Tiles, float]], int]:
    """The fastest candidate of each kernel with the time of its layer, the other kernels at the table's tiles; and how
    many layers with other tiles were timed.
    """
    first, tried = seconds_of(table), 0
    found: dict[str, tuple[Tiles, float]] = {}
    for name, tiles in table.items():
        times = {tiles: first}
        for other in candidates(tiles)[1:]:
            times[other] = seconds_of({**table, name: other})
            tried += 1
        best = min(times, key=lambda each: times[each])
        found[name] = best, times[best]
    return found, tried


def tune_here() -> TilesFile | None:
    """Time the candidates on the current GPU: a dozen layers, a few times each.

    None for a GPU that the table does not name, as one of AMD: there is nothing to choose from.
    """
    import triton  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]

    device = torch.device("cuda", torch.cuda.current_device())
    capability = capability_of(device)
    if capability is None or capability[0] not in LARGE:
        return None
    found, tried = fastest(LARGE[capability[0]], _layer(device))
    sizes = {name: TileSizes(**vars(tiles), layer_seconds=seconds) for name, (tiles, seconds) in found.items()}
    return TilesFile(gpu=torch.cuda.get_device_name(device), triton=triton.__version__, kernels=sizes, tried=tried)


def _layer(device: torch.device) -> Callable[[Choice], float]:
    """A function that times a layer, forward and backward, with any tiles."""
    from sparsedial.kernels.triton_sparse import with_tiles

    def random(*sizes: int) -> Tensor:
        drawn = torch.randn(sizes, device=device, dtype=torch.bfloat16) * sizes[-2] ** -0.5
        return drawn.requires_grad_()

    x_TD = random(TOKENS, D_MODEL)
    w_in_EDH, w_out_EFD = random(EXPERTS, D_MODEL, 2 * D_EXPERT), random(EXPERTS, D_EXPERT, D_MODEL)
    chosen_TK = torch.rand(TOKENS, EXPERTS, device=device).topk(TOP_K, dim=1).indices
    gates_TK = torch.rand(TOKENS, TOP_K, device=device, requires_grad=True)

    def once(tiles: Choice) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        y_TD = with_tiles(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, None, tiles)
        torch.autograd.backward(y_TD, torch.ones_like(y_TD))
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000

    def seconds_of(tiles: Choice) -> float:
        return statistics.median([once(tiles) for _ in range(WARM_UP + TIMES)][WARM_UP:])

    return seconds_of
