"""Training steps side by side in one run: `python -m benchmarks.training_step [--quick]`.

Writes benchmarks/records/training_step.json: medians with 10th and 90th percentiles, and ratios against the peers.
Every group is timed in turn, round by round, so that what the machine does meanwhile falls on all alike.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers import PlainGpt, hugging_face, make_peer_step
from sparsedial.machine.hardware import BusyWatch, describe
from sparsedial.machine.timing import Timing, measure_in_turn
from sparsedial.shape.counts import training_flops_per_token
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape
from sparsedial.store import write_json
from sparsedial.sweep.timed import make_step

RECORD = Path(__file__).parent / "records" / "training_step.json"
ROUNDS, ROUND_SECONDS = (3, 1.0) if "--quick" in sys.argv else (9, 4.0)


def measure(calls: dict[str, Callable[[], None]]) -> dict[str, Timing]:
    """Time a group in turn."""
    return measure_in_turn(calls, rounds=ROUNDS, round_seconds=ROUND_SECONDS)


def rows(timings: dict[str, Timing], flops: dict[str, float], tokens: int) -> list[dict[str, Any]]:
    """A line for every candidate."""
    return [
        {
            "name": name,
            **timing.record(),
            "tokens_per_second": tokens / timing.median_seconds,
            "gflops_per_second": flops[name] / timing.median_seconds / 1e9,
        }
        for name, timing in timings.items()
    ]


def ratio(timings: dict[str, Timing], ours: str, peer: str) -> dict[str, float]:
    """How many times as fast as a peer, with the range that the percentiles give."""
    mine, theirs = timings[ours], timings[peer]
    return {
        "value": theirs.median_seconds / mine.median_seconds,
        "low": theirs.low_seconds / mine.high_seconds,
        "high": theirs.high_seconds / mine.low_seconds,
    }


def dense_against_plain_gpt() -> dict[str, Any]:
    """A dense model at d_model 256, 16 x 256 tokens, two threads, beside a plain eager GPT of the same FLOPs."""
    shape = Ladder(vocab_size=256, context=256).shape(256, 0)
    tokens = 16 * 256
    timings = measure(
        {
            "sparsedial": make_step(shape, 16, 256, threads=2),
            "plain GPT": make_peer_step(PlainGpt(shape), 256, 16, 256),
        }
    )
    flops = dict.fromkeys(timings, training_flops_per_token(shape, 256) * tokens)
    return {
        "what": "dense, d_model 256, 8 layers, 16 x 256 tokens, fp32, 2 threads",
        "rows": rows(timings, flops, tokens),
        "speed_against_plain_gpt": ratio(timings, "sparsedial", "plain GPT"),
    }


def sparse_against_hugging_face() -> dict[str, Any]:
    """64 experts top-6 at d_model 256 beside Hugging Face's Qwen3-MoE in its modes; the tax over dense twins."""
    common = {"layers": 4, "d_model": 256, "heads": 8, "kv_heads": 8, "head_dim": 32, "vocab_size": 256, "context": 256}
    routed = {"d_ff": 0, "experts": 64, "top_k": 6, "d_expert": 64, "gate": "softmax"}
    sparse = Shape(**common, **routed, qk_norm="head", tied_embeddings=True)
    dense = Shape(**common, d_ff=6 * 64, qk_norm="head", tied_embeddings=True)
    tokens = 16 * 256
    timings = measure(
        {
            "sparsedial sparse": make_step(sparse, 16, 256, threads=2),
            "sparsedial dense": make_step(dense, 16, 256, threads=2),
            "plain GPT dense": make_peer_step(PlainGpt(dense), 256, 16, 256),
            "transformers grouped_mm": make_peer_step(hugging_face(sparse, "grouped_mm"), 256, 16, 256),
            "transformers eager": make_peer_step(hugging_face(sparse, "eager"), 256, 16, 256),
            "transformers dense": make_peer_step(hugging_face(dense, "eager"), 256, 16, 256),
        }
    )
    flops = {name: training_flops_per_token(dense if "dense" in name else sparse, 256) * tokens for name in timings}
    best = min(("transformers grouped_mm", "transformers eager"), key=lambda name: timings[name].median_seconds)
    fastest_dense = min(("sparsedial dense", "plain GPT dense"), key=lambda name: timings[name].median_seconds)
    return {
        "what": "64 experts, top-6, d_expert 64, d_model 256, 4 layers, 16 x 256 tokens, fp32, 2 threads",
        "rows": rows(timings, flops, tokens),
        "best_mode_of_transformers": best,
        "speed_against_transformers": ratio(timings, "sparsedial sparse", best),
        "tax": ratio(timings, fastest_dense, "sparsedial sparse"),
        "tax_of_transformers": ratio(timings, "transformers dense", best),
    }


def tiny_shapes() -> list[dict[str, Any]]:
    """The study's own sizes on one thread: tax over the faster of our dense model and a plain GPT, and over a loop."""
    ladder = Ladder(vocab_size=256, context=128)
    groups = []
    for d_model in (16, 32, 48, 64):
        dense = ladder.shape(d_model, 0)
        calls = {
            "dense": make_step(dense, 8, 128),
            "plain GPT": make_peer_step(PlainGpt(dense), 256, 8, 128),
        }
        for experts in (8, 32):
            sparse = ladder.shape(d_model, experts)
            calls[f"{experts} experts"] = make_step(sparse, 8, 128)
            calls[f"{experts} experts in a loop"] = make_peer_step(PlainGpt(sparse, looped=True), 256, 8, 128)
        torch.set_num_threads(1)
        timings = measure(calls)
        fastest = min(("dense", "plain GPT"), key=lambda name: timings[name].median_seconds)
        flops = {
            name: training_flops_per_token(ladder.shape(d_model, int(name.split()[0]) if name[0].isdigit() else 0), 128)
            * 1024
            for name in timings
        }
        groups.append(
            {
                "what": f"d_model {d_model}, 8 x 128 tokens, fp32, 1 thread",
                "rows": rows(timings, flops, 1024),
                "dense_against_plain_gpt": ratio(timings, "dense", "plain GPT"),
                **{f"tax_{experts}_experts": ratio(timings, fastest, f"{experts} experts") for experts in (8, 32)},
                **{
                    f"speed_against_loop_{experts}_experts": ratio(
                        timings, f"{experts} experts", f"{experts} experts in a loop"
                    )
                    for experts in (8, 32)
                },
            }
        )
    return groups


def main() -> None:
    """Measure everything and write the record."""
    torch.set_num_threads(2)
    busy = BusyWatch()
    record: dict[str, Any] = {
        "command": "python -m benchmarks.training_step",
        "machine": describe(),
        "torch": torch.__version__,
        "dense": dense_against_plain_gpt(),
        "sparse": sparse_against_hugging_face(),
        "tiny": tiny_shapes(),
    }
    record["machine_busy"] = busy.share()
    write_json(RECORD, record)
    for group in (record["dense"], record["sparse"], *record["tiny"]):
        print(group["what"])
        for row in group["rows"]:
            spread = f"{row['low_seconds'] * 1e3:.1f}–{row['high_seconds'] * 1e3:.1f}"
            rate = f"{row['gflops_per_second']:6.1f} GFLOP/s"
            print(f"  {row['name']:<26} {row['median_seconds'] * 1e3:8.1f} ms ({spread})  {rate}")
        for name, value in group.items():
            if isinstance(value, dict):
                print(f"  {name}: {value['value']:.2f} ({value['low']:.2f}–{value['high']:.2f})")


if __name__ == "__main__":
    main()
