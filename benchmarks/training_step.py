"""Training steps side by side in one run: `python -m benchmarks.training_step [--quick]`.

Every candidate has a process of its own, so that each peer uses its own allocator; a group is timed in turns,
round by round. Where torchtitan can be imported, a plain GPT with its MoE layer is among the peers (its products are in
bfloat16). Writes benchmarks/records/training_step.json, or training_step_avx512.json on a processor that has AVX-512:
medians with 10th and 90th percentiles, peak memory above the imports, and ratios against the peers. A tax is a sparse
step's time over the faster of our dense model and a plain eager GPT of the same FLOPs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.keeping import has, keep
from benchmarks.peers import LoopedExperts, TitanExperts, hugging_face_step, plain_step
from benchmarks.side_by_side import Step, fastest, measure, range_words, ratio
from sparsedial.machine.hardware import BusyWatch
from sparsedial.runs.timed import make_step
from sparsedial.shape.counts import training_flops_per_token
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape

RECORD = Path(__file__).parent / "records" / f"training_step{'_avx512' if has('avx512f') else ''}.json"
QUICK = "--quick" in sys.argv
SMALL = {"rounds": 3, "round_seconds": 0.5} if QUICK else {"rounds": 15, "round_seconds": 1.5}
LARGE = {"rounds": 2, "round_seconds": 0.1} if QUICK else {"rounds": 9, "round_seconds": 3.0}
TORCHTITAN = find_spec("torchtitan") is not None
EXPERT_MODES = ("grouped_mm", "eager")  # of transformers; batched_mm copies an expert's weights for every token


def group(
    what: str, makes: Mapping[str, tuple[Shape, Callable[[], Step]]], batch: int, context: int, threads: int
) -> tuple[dict[str, Any], Any, dict[str, float]]:
    """The first fields of a group's record, its timings, and its peaks."""
    steps = {name: make for name, (_, make) in makes.items()}
    timings, peaks = measure(steps, threads=threads, **(SMALL if threads == 1 else LARGE))
    tokens = batch * context
    rows = [
        {
            "name": name,
            **timing.record(),
            "tokens_per_second": tokens / timing.median_seconds,
            "gflops_per_second": training_flops_per_token(makes[name][0], context)
            * tokens
            / timing.median_seconds
            / 1e9,
            "peak_bytes_above_imports": peaks[name],
        }
        for name, timing in timings.items()
    ]
    setting = f"{batch} x {context} tokens, fp32, {threads} thread{'s' if threads > 1 else ''}"
    return {"what": f"{what}, {setting}", "rows": rows}, timings, peaks


def dense_against_plain_gpt() -> dict[str, Any]:
    """A dense model at d_model 256 beside a plain eager GPT of the same FLOPs."""
    shape = Ladder(vocab_size=256, context=256).shape(256, 0)
    candidates = {
        "sparsedial": (shape, partial(make_step, shape, 16, 256, threads=2)),
        "plain GPT": (shape, partial(plain_step, shape, 16, 256)),
    }
    record, timings, _ = group(f"dense, d_model 256, {shape.layers} layers", candidates, 16, 256, 2)
    return {**record, "speed_against_plain_gpt": ratio(timings, "sparsedial", "plain GPT")}


def sparse_against_hugging_face(d_model: int, d_expert: int) -> dict[str, Any]:
    """64 experts top-6 beside Hugging Face's Qwen3-MoE in its modes; the tax over dense twins."""
    common: dict[str, Any] = {
        "layers": 4, "d_model": d_model, "heads": d_model // 32, "kv_heads": d_model // 32, "head_dim": 32,
        "vocab_size": 256, "context": 256, "qk_norm": "head", "tied_embeddings": True,
    }  # fmt: skip
    sparse = Shape(**common, d_ff=0, experts=64, top_k=6, d_expert=d_expert, gate="softmax")
    dense = Shape(**common, d_ff=6 * d_expert)
    candidates = {
        "sparsedial sparse": (sparse, partial(make_step, sparse, 16, 256, threads=2)),
        "sparsedial dense": (dense, partial(make_step, dense, 16, 256, threads=2)),
        "plain GPT dense": (dense, partial(plain_step, dense, 16, 256)),
        **{
            f"transformers {mode}": (sparse, partial(hugging_face_step, sparse, mode, 16, 256)) for mode in EXPERT_MODES
        },
        "transformers dense": (dense, partial(hugging_face_step, dense, "eager", 16, 256)),
    }
    if TORCHTITAN:
        candidates["torchtitan's experts"] = (sparse, partial(plain_step, sparse, 16, 256, TitanExperts))
    what = f"64 experts, top-6, d_expert {d_expert}, d_model {d_model}, 4 layers"
    record, timings, peaks = group(what, candidates, 16, 256, 2)
    modes = [f"transformers {mode}" for mode in EXPERT_MODES]
    best, peers = fastest(timings, *modes), [*modes, "torchtitan's experts"] if TORCHTITAN else modes
    return {
        **record,
        "best_mode_of_transformers": best,
        "speed_against_transformers": ratio(timings, "sparsedial sparse", best),
        "speed_against_torchtitan": ratio(timings, "sparsedial sparse", "torchtitan's experts") if TORCHTITAN else None,
        "tax": ratio(timings, fastest(timings, "sparsedial dense", "plain GPT dense"), "sparsedial sparse"),
        "tax_of_transformers": ratio(timings, "transformers dense", best),
        "memory_over_leanest_peer": peaks["sparsedial sparse"] / min(peaks[name] for name in peers),
    }


def deepseek_against_hugging_face() -> dict[str, Any]:
    """A small model with all parts of DeepSeek-V3, beside Hugging Face's DeepSeek-V3 in its modes."""
    shape = Shape(
        layers=4, d_model=256, heads=8, kv_heads=8, head_dim=48, vocab_size=256, context=256, d_ff=448, dense_layers=1,
        experts=64, top_k=6, d_expert=64, shared_experts=1, gate="sigmoid", routing_bias=True, routed_scaling=2.5,
        expert_groups=8, kept_groups=4, kv_lora_rank=128, q_lora_rank=192, nope_head_dim=32, rope_head_dim=16,
        v_head_dim=32,
    )  # fmt: skip
    modes = {f"transformers {mode}": partial(hugging_face_step, shape, mode, 16, 256) for mode in EXPERT_MODES}
    makes = {"sparsedial": partial(make_step, shape, 16, 256, threads=2), **modes}
    what = "DeepSeek-V3's parts (latent attention, 64 experts in 8 groups, top-6, 1 shared), d_model 256, 4 layers"
    record, timings, peaks = group(what, {name: (shape, make) for name, make in makes.items()}, 16, 256, 2)
    best = fastest(timings, *modes)
    return {
        **record,
        "best_mode_of_transformers": best,
        "speed_against_transformers": ratio(timings, "sparsedial", best),
        "memory_over_leanest_peer": peaks["sparsedial"] / min(peaks[name] for name in modes),
    }


def tiny(d_model: int) -> dict[str, Any]:
    """The study's own sizes: dense beside a plain GPT, sparse beside a loop over experts, and the tax."""
    ladder = Ladder(vocab_size=256, context=128)
    dense = ladder.shape(d_model, 0)
    candidates = {
        "dense": (dense, partial(make_step, dense, 8, 128)),
        "plain GPT": (dense, partial(plain_step, dense, 8, 128)),
    }
    for experts in (8, 32):
        sparse = ladder.shape(d_model, experts)
        candidates[f"{experts} experts"] = (sparse, partial(make_step, sparse, 8, 128))
        candidates[f"{experts} experts in a loop"] = (sparse, partial(plain_step, sparse, 8, 128, LoopedExperts))
    record, timings, peaks = group(f"d_model {d_model}", candidates, 8, 128, 1)
    best = fastest(timings, "dense", "plain GPT")
    record["dense_against_plain_gpt"] = ratio(timings, "dense", "plain GPT")
    for experts in (8, 32):
        name = f"{experts} experts"
        record[f"tax_{experts}_experts"] = ratio(timings, best, name)
        record[f"speed_against_loop_{experts}_experts"] = ratio(timings, name, f"{name} in a loop")
        record[f"memory_over_loop_{experts}_experts"] = peaks[name] / peaks[f"{name} in a loop"]
    return record


def shown(record: dict[str, Any]) -> dict[str, Any]:
    """A group, printed."""
    print(record["what"])
    for row in record["rows"]:
        spread = f"{row['low_seconds'] * 1e3:.1f}–{row['high_seconds'] * 1e3:.1f}"
        rate = f"{row['gflops_per_second']:6.1f} GFLOP/s, {row['peak_bytes_above_imports'] / 1e6:7.1f} MB"
        print(f"  {row['name']:<26} {row['median_seconds'] * 1e3:8.1f} ms ({spread})  {rate}")
    for name, value in record.items():
        if isinstance(value, dict):
            print(f"  {name}: {range_words(value)}")
        elif isinstance(value, float):
            print(f"  {name}: {value:.2f}")
    sys.stdout.flush()
    return record


def main() -> None:
    """Measure everything and write the record."""
    busy = BusyWatch()
    record: dict[str, Any] = {
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "bfloat16_instructions": has("avx512_bf16"),  # else torchtitan's are emulated
        "dense": shown(dense_against_plain_gpt()),
        "sparse": [shown(sparse_against_hugging_face(*sizes)) for sizes in ((256, 64), (512, 128))],
        "deepseek": shown(deepseek_against_hugging_face()),
        "tiny": [shown(tiny(d_model)) for d_model in (16, 32, 48, 64)],
    }
    record["machine_busy"] = busy.share()
    if not QUICK:
        keep(RECORD, "python -m benchmarks.training_step", record)


if __name__ == "__main__":
    main()
