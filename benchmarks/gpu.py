"""The rows that need a GPU, in one call of some five minutes: `python -m benchmarks.gpu`.

The sparse layer forward and backward in bf16 (Triton's kernels beside `torch` grouped products and beside a large
matrix product of this device); a training step of OLMoE's shape beside dense of the same active size; and steps of a
study's size by one process and by several on the same GPU. Writes benchmarks/records/gpu_DEVICE.json. With `--device
cpu --quick` the same code runs at toy sizes, for a check, and writes nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.keeping import keep
from benchmarks.side_by_side import Apart, ratio
from sparsedial.kernels.sparse import sparse_feed_forward
from sparsedial.machine.timing import measure_in_turn
from sparsedial.runs.timed import make_step
from sparsedial.shape.counts import active_parameters, total_parameters, training_flops_per_token
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.published import PUBLISHED
from sparsedial.shape.shape import Shape

RECORDS = Path(__file__).parent / "records"
LAYERS = {"DeepSeek-V3-like": (7168, 256, 8, 2048), "OLMoE-like": (2048, 64, 8, 1024)}  # D, experts, top-k, d_expert
TOY_LAYERS = {"toy": (32, 8, 2, 16)}
TOKENS, SQUARE = 16384, 8192
BYTES_PER_PARAMETER = 16  # weight, gradient and two moments, fp32
ACTIVATIONS = 0.7  # share of the memory that those four may take
PROCESSES = (1, 2, 4, 8, 16)  # of a study, on one GPU
PACKED_SECONDS = 5.0
Call = Callable[[], None]


def layer(what: str, sizes: tuple[int, int, int, int], device: str, quick: bool) -> dict[str, Any]:
    """One layer's candidates in turn; FLOP/s beside those of a large square product."""
    d_model, experts, top_k, d_expert = sizes
    tokens, side = (64, 64) if quick else (TOKENS, SQUARE)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    make = torch.Generator(device).manual_seed(0)

    def random(*size: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*size, generator=make, device=device, dtype=dtype)).requires_grad_()

    x_TD, slope_TD = random(tokens, d_model), random(tokens, d_model).detach()
    w_in_EDH = random(experts, d_model, 2 * d_expert, scale=d_model**-0.5)
    w_out_EFD = random(experts, d_expert, d_model, scale=d_expert**-0.5)
    chosen_TK = torch.rand(tokens, experts, generator=make, device=device).topk(top_k, dim=1).indices
    gates_TK = torch.rand(tokens, top_k, generator=make, device=device, dtype=dtype).requires_grad_()
    leaves = (x_TD, w_in_EDH, w_out_EFD, gates_TK)
    square = random(side, side).detach()
    squared = torch.empty_like(square)

    def step(kernel: str) -> None:
        y_TD = sparse_feed_forward(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, kernel)
        torch.autograd.grad(y_TD, leaves, slope_TD)
        wait(device)

    def multiply() -> None:
        torch.mm(square, square, out=squared)
        wait(device)

    ours = "triton" if device == "cuda" else "compiled"
    calls: dict[str, Call] = {
        ours: partial(step, ours),
        "torch_grouped": partial(step, "torch_grouped"),
        "matmul": multiply,
    }
    timings = measure_in_turn(calls, rounds=2 if quick else 9, round_seconds=0.05 if quick else 0.5)
    flops = 3 * 2 * 3 * d_model * d_expert * tokens * top_k  # three products, forward and twice that backward
    rates = {name: flops / timing.median_seconds for name, timing in timings.items() if name != "matmul"}
    peak = 2 * side**3 / timings["matmul"].median_seconds
    return {
        "what": f"{what}: d_model {d_model}, {experts} experts, top-{top_k}, d_expert {d_expert}, {tokens} tokens",
        "rows": {name: timing.record() for name, timing in timings.items()},
        "flops_per_second": rates,
        "matmul_flops_per_second": peak,
        "speed_against_grouped_mm": ratio(timings, ours, "torch_grouped"),
        "share_of_matmul": rates[ours] / peak,
    }


def wait(device: str) -> None:
    """Wait until the device has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def step_shapes(device: str, quick: bool) -> tuple[Shape, Shape]:
    """OLMoE's shape with as many layers as this device's memory trains in fp32, and dense of its active size."""
    if quick:
        ladder = Ladder(vocab_size=256, context=64)
        return ladder.shape(32, 8), ladder.shape(32, 0)
    sparse = PUBLISHED["olmoe-1b-7b"]
    room = ACTIVATIONS * torch.cuda.get_device_properties(device).total_memory
    while BYTES_PER_PARAMETER * total_parameters(sparse) > room:
        sparse = replace(sparse, layers=sparse.layers - 1)
    dense = replace(sparse, experts=0, top_k=0, d_expert=0, d_ff=sparse.top_k * sparse.d_expert)
    return sparse, dense


def training_step(device: str, quick: bool, peak: float) -> dict[str, Any]:
    """The sparse step's time over the dense one's at the same active size, one after the other, since both do not
    fit at once; and each one's share of `peak`, the FLOP/s of a large product on this device.
    """
    batch, context = (2, 32) if quick else (4, 2048)
    rows = {}
    for name, shape in zip(("sparse", "dense"), step_shapes(device, quick), strict=True):
        step = make_step(shape, batch, context, device)
        timing = measure_in_turn({name: step}, rounds=1 if quick else 5, round_seconds=0.1 if quick else 2.0)[name]
        flops = training_flops_per_token(shape, context) * batch * context
        rows[name] = {
            **timing.record(),
            "layers": shape.layers,
            "active_parameters": active_parameters(shape),
            "total_parameters": total_parameters(shape),
            "flops_per_second": flops / timing.median_seconds,
            "share_of_matmul": flops / timing.median_seconds / peak,
        }
        del step
        if device == "cuda":
            torch.cuda.empty_cache()
    tax = rows["sparse"]["median_seconds"] / rows["dense"]["median_seconds"]
    return {"what": f"{batch} x {context} tokens", "rows": rows, "tax": tax}


def packed(device: str, quick: bool) -> list[dict[str, float]]:
    """Steps per second of a study's shape, by several processes at once on one device."""
    shape = Ladder(vocab_size=256, context=128).shape(16 if quick else 64, 8 if quick else 32)
    seconds, rows = (0.3 if quick else PACKED_SECONDS), []
    for count in PROCESSES[:2] if quick else PROCESSES:
        with ExitStack() as stack:
            apart = [stack.enter_context(Apart(partial(make_step, shape, 8, 128, device), 1)) for _ in range(count)]
            for one in apart:
                one()  # warms up
            steps, end = 0, time.perf_counter() + seconds
            began = time.perf_counter()
            while time.perf_counter() < end:
                for one in apart:
                    one.begin()
                for one in apart:
                    one.finish()
                steps += count
            rows.append({"processes": count, "steps_per_second": steps / (time.perf_counter() - began)})
    for row in rows:
        row["times_one_process"] = row["steps_per_second"] / rows[0]["steps_per_second"]
    return rows


def main() -> None:
    """Measure everything and write the record."""
    parser = argparse.ArgumentParser(description="what needs a GPU")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="toy sizes; nothing is written")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU here: nothing is measured")
    sizes_of = TOY_LAYERS if options.quick else LAYERS
    layers = [layer(what, sizes, options.device, options.quick) for what, sizes in sizes_of.items()]
    peak = max(row["matmul_flops_per_second"] for row in layers)
    record: dict[str, Any] = {
        "torch": torch.__version__,
        "layers": layers,
        "step": training_step(options.device, options.quick, peak),
        "packed": packed(options.device, options.quick),
    }
    for row in layers:
        value, share = row["speed_against_grouped_mm"]["value"], row["share_of_matmul"]
        print(f"{row['what']}: {value:.2f} times grouped products, {share:.0%} of a large product")
    step = record["step"]
    print(f"step: tax {step['tax']:.2f}, {step['rows']['sparse']['share_of_matmul']:.0%} of a large product")
    for row in record["packed"]:
        print(f"{row['processes']} processes: {row['times_one_process']:.2f} times the steps of one")
    if not options.quick:
        name = torch.cuda.get_device_name().lower().replace(" ", "_")
        keep(RECORDS / f"gpu_{name}.json", "python -m benchmarks.gpu", record)


if __name__ == "__main__":
    main()
