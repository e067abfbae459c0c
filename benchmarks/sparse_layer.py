"""The sparse layer alone, forward and backward, beside its peers in one run: `python -m benchmarks.sparse_layer`.

At d_model 256 and 512, 4,096 tokens, fp32, two threads: the compiled kernel, PyTorch's grouped products, a loop over
experts, products batched over padded rows; and a dense SwiGLU layer of the same FLOPs, the faster of a plain one and
our compiled one. Writes benchmarks/records/sparse_layer.json.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.keeping import keep
from benchmarks.side_by_side import ratio
from sparsedial.kernels import layers
from sparsedial.kernels.reference import activate, swiglu
from sparsedial.kernels.sparse import sparse_feed_forward
from sparsedial.machine.hardware import BusyWatch
from sparsedial.machine.timing import measure_in_turn
from sparsedial.training.memory import settle_memory

RECORD = Path(__file__).parent / "records" / "sparse_layer.json"
ROUNDS, ROUND_SECONDS = (3, 0.3) if "--quick" in sys.argv else (11, 0.5)
TOKENS, THREADS = 4096, 2
SHAPES = [(8, 2, 256), (64, 6, 64), (64, 8, 128), (256, 8, 64)]  # experts, top_k, d_expert
REACH = {(8, 2, 256): 0.95, (64, 6, 64): 0.75, (64, 8, 128): 0.85, (256, 8, 64): 0.6}


def padded(x_TD: Tensor, w_in_EDH: Tensor, w_out_EFD: Tensor, chosen_TK: Tensor, gates_TK: Tensor) -> Tensor:
    """The peer that pads every expert's rows to the fullest one's and multiplies in batches."""
    (tokens, top_k), experts = chosen_TK.shape, len(w_in_EDH)
    chosen_R = chosen_TK.flatten()
    order_R = chosen_R.argsort(stable=True)
    sizes_E = chosen_R.bincount(minlength=experts)
    most, firsts_E = int(sizes_E.max()), sizes_E.cumsum(0) - sizes_E
    sorted_R = chosen_R[order_R]
    places_R = sorted_R * most + torch.arange(len(order_R)) - firsts_E[sorted_R]
    x_PD = x_TD.new_zeros(experts * most, x_TD.shape[1]).index_copy(0, places_R, x_TD[order_R // top_k])
    h_EMH = torch.bmm(x_PD.view(experts, most, -1), w_in_EDH)
    y_PD = torch.bmm(activate(h_EMH), w_out_EFD).flatten(0, 1)
    y_RD = torch.empty_like(y_PD[: len(order_R)]).index_copy(0, order_R, y_PD[places_R])
    return (y_RD.view(tokens, top_k, -1) * gates_TK.unsqueeze(2)).sum(1)


def candidates(d_model: int, experts: int, top_k: int, d_expert: int) -> dict[str, Callable[[], None]]:
    """Forward and backward of each, on the same numbers."""
    make = torch.Generator().manual_seed(0)

    def random(*size: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*size, generator=make)).requires_grad_()

    x_TD, slope_TD = random(TOKENS, d_model), torch.randn(TOKENS, d_model, generator=make)
    w_in_EDH, w_out_EFD = random(experts, d_model, 2 * d_expert), random(experts, d_expert, d_model)
    chosen_TK = torch.rand(TOKENS, experts, generator=make).topk(top_k, dim=1).indices
    gates_TK = torch.rand(TOKENS, top_k, generator=make).requires_grad_()
    width = top_k * d_expert
    w_in_DH, w_out_FD, norm_D = random(d_model, 2 * width), random(width, d_model), torch.ones(d_model).requires_grad_()
    routed = (x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK)
    of_routed = (x_TD, w_in_EDH, w_out_EFD, gates_TK)

    def step(run: Callable[[], Tensor], leaves: tuple[Tensor, ...]) -> Callable[[], None]:
        def whole() -> None:
            torch.autograd.grad(run(), leaves, slope_TD)

        return whole

    return {
        "compiled": step(lambda: sparse_feed_forward(*routed, "compiled"), of_routed),
        "grouped_mm": step(lambda: sparse_feed_forward(*routed, "torch_grouped"), of_routed),
        "loop": step(lambda: sparse_feed_forward(*routed, "reference"), of_routed),
        "padded bmm": step(lambda: padded(*routed), of_routed),
        "dense, plain": step(lambda: swiglu(x_TD, w_in_DH, w_out_FD), (x_TD, w_in_DH, w_out_FD)),
        "dense, compiled": step(
            lambda: layers.dense_layer(x_TD, norm_D, w_in_DH, w_out_FD, 1e-6), (x_TD, norm_D, w_in_DH, w_out_FD)
        ),
    }


def measure(d_model: int, experts: int, top_k: int, d_expert: int) -> dict[str, Any]:
    """One shape: every candidate in turn, and the ratios."""
    timings = measure_in_turn(candidates(d_model, experts, top_k, d_expert), rounds=ROUNDS, round_seconds=ROUND_SECONDS)
    peer = min(("grouped_mm", "loop", "padded bmm"), key=lambda name: timings[name].median_seconds)
    dense = min(("dense, plain", "dense, compiled"), key=lambda name: timings[name].median_seconds)
    return {
        "what": f"{experts} experts, top-{top_k}, d_expert {d_expert}, d_model {d_model}",
        "rows": {name: timing.record() for name, timing in timings.items()},
        "best_peer": peer,
        "speed_against_best_peer": ratio(timings, "compiled", peer),
        "share_of_plain_dense": ratio(timings, "compiled", "dense, plain"),
        "share_of_faster_dense": ratio(timings, "compiled", dense),
        "reach": REACH[experts, top_k, d_expert],
    }


def main() -> None:
    """Measure every shape and write the record."""
    settle_memory()
    torch.set_num_threads(THREADS)
    busy = BusyWatch()
    groups = [measure(d_model, *shape) for d_model in (256, 512) for shape in SHAPES]
    record = {
        "torch": torch.__version__,
        "what": f"forward and backward, {TOKENS} tokens, fp32, {THREADS} threads",
        "shapes": groups,
        "machine_busy": busy.share(),
    }
    keep(RECORD, "python -m benchmarks.sparse_layer", record)
    for group in groups:
        words = [f"{name} {row['median_seconds'] * 1e3:.1f} ms" for name, row in group["rows"].items()]
        print(group["what"], "|", ", ".join(words))
        for name in ("speed_against_best_peer", "share_of_plain_dense", "share_of_faster_dense"):
            value = group[name]
            print(f"  {name}: {value['value']:.2f} ({value['low']:.2f}–{value['high']:.2f}), reach {group['reach']}")


if __name__ == "__main__":
    main()
