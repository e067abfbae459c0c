"""Greedy decoding on the CPU beside its peers in one run: `python -m benchmarks.decoding --llama-python PYTHON`.

Sparse models with random weights, fp32, one sequence and eight together, on two threads and on one: ours;
`transformers` in the fastest of its expert modes; llama.cpp on the same weights in F32, in a process of its own whose
PYTHON has `gguf`, `llama-cpp-python` and `safetensors` (without the flag, and for DeepSeek-V3's architecture, which
`benchmarks/gguf.py` does not write, its rows are left out). All three are clocked
alike: from the first new token, which reading the prompt gives, to the last. Runs are taken in turn.
Writes benchmarks/records/decoding.json. B sequences, S positions, E experts, D d_model, K chosen, V vocabulary.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.answering import Answering
from benchmarks.keeping import keep
from benchmarks.side_by_side import ratio, timed_in_turns
from sparsedial.machine.hardware import BusyWatch
from sparsedial.machine.timing import Timing, measure_in_turn
from sparsedial.model.attention import rms_norm
from sparsedial.model.checkpoint import save_checkpoint
from sparsedial.model.router import choose
from sparsedial.model.transformer import Transformer, initialise
from sparsedial.serving.generation import generate_together
from sparsedial.serving.sampling import Sampling
from sparsedial.shape.counts import active_parameters, cached_values_per_token, total_parameters
from sparsedial.shape.shape import Shape

RECORD = Path(__file__).parent / "records" / "decoding.json"
PROMPT, CONTEXT = 32, 256
COMMON: dict[str, Any] = {
    "layers": 8, "head_dim": 64, "d_ff": 0, "vocab_size": 4096, "context": CONTEXT, "experts": 64, "top_k": 6,
    "qk_norm": "head", "tied_embeddings": True,
}  # fmt: skip
SHAPES = {
    "28M": Shape(d_model=256, heads=4, kv_heads=4, d_expert=64, **COMMON),
    "99M": Shape(d_model=512, heads=8, kv_heads=8, d_expert=112, **COMMON),
    "27M as DeepSeek-V3": Shape(
        layers=8, d_model=256, heads=4, kv_heads=4, head_dim=96, d_ff=448, vocab_size=4096, context=CONTEXT,
        dense_layers=1, experts=64, top_k=6, d_expert=64, shared_experts=1, gate="sigmoid", routing_bias=True,
        routed_scaling=2.5, expert_groups=8, kept_groups=4, kv_lora_rank=128, nope_head_dim=64, rope_head_dim=32,
        v_head_dim=64,
    ),
}  # fmt: skip
BATCHES, THREADS = (1, 8), (2, 1)
MODES = ("eager", "grouped_mm", "batched_mm")  # of experts in `transformers`
TRIAL_TOKENS = 9
READ_BYTES = 1 << 29  # an array that no cache holds
LOUD = {"w_out_QD": 8.0, "w_out_EFD": 8.0, "q_norm_C": 2.0, "k_norm_C": 2.0}


@dataclass(frozen=True, kw_only=True)
class Run:
    """The result of one decoding."""

    seconds: float  # from the first new token to the last
    ids: list[list[int]]  # the new tokens of every sequence


Decode = Callable[[list[list[int]], int], Run]  # prompts, new tokens of each


def steps_of(decodes: Mapping[str, Decode], prompts: list[list[int]], tokens: int) -> dict[str, Callable[[], float]]:
    """Calls that decode, and give the seconds of a step."""
    return {
        name: lambda decode=decode: decode(prompts, tokens).seconds / (tokens - 1) for name, decode in decodes.items()
    }


def loud_model(shape: Shape) -> Transformer:
    """A model whose random weights are so large that each new token depends on all tokens before it.

    With usual initial weights the text repeats a few tokens, and the few experts that they use stay in the cache.
    """
    model = initialise(shape, 0).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(LOUD.get(name.rpartition(".")[2], 1.0))
    return model


def ours(model: Transformer) -> Decode:
    """Our decoding."""

    def decode(prompts: list[list[int]], tokens: int) -> Run:
        rows = generate_together(model, prompts, tokens, Sampling(temperature=0.0))
        found = [next(rows)]
        began = time.perf_counter()
        found += islice(rows, tokens - 1)
        seconds = time.perf_counter() - began
        return Run(seconds=seconds, ids=np.array(found).T.tolist())

    return decode


def hugging_face(folder: Path) -> Any:
    """The checkpoint as `transformers` loads it."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def theirs(model: Any, mode: str) -> Decode:
    """The decoding of `transformers` with one mode of its experts."""

    def decode(prompts: list[list[int]], tokens: int) -> Run:
        times: list[float] = []

        def clock(ids_BS: Tensor, scores: Any, **rest: Any) -> Tensor:
            times.append(time.perf_counter())
            return torch.zeros(len(ids_BS), dtype=torch.bool)

        model.set_experts_implementation(mode)
        ids_BS = torch.tensor(prompts)
        options = {"do_sample": False, "pad_token_id": 0, "stopping_criteria": [clock]}
        found_BS = model.generate(ids_BS, attention_mask=torch.ones_like(ids_BS), max_new_tokens=tokens, **options)
        assert len(times) == tokens
        return Run(seconds=times[-1] - times[0], ids=found_BS[:, ids_BS.shape[1] :].tolist())

    return decode


class Llama(Answering):
    """llama.cpp in its own process, on a checkpoint that it reads as GGUF."""

    def __init__(self, python: str, folder: Path) -> None:
        super().__init__([python, "-m", "benchmarks.gguf", str(folder), str(folder.with_suffix(".gguf"))])

    def read(self, prompts: list[list[int]], tokens: int, threads: int, flash: bool) -> dict[str, Any]:
        """New ids, seconds, and the logits behind the prompts."""
        return self.ask({"prompts": prompts, "tokens": tokens, "threads": threads, "flash": flash, "length": CONTEXT})

    def decode(self, threads: int, flash: bool) -> Decode:
        """The candidate that decodes with llama.cpp."""

        def decode(prompts: list[list[int]], tokens: int) -> Run:
            answer = self.read(prompts, tokens, threads, flash)
            return Run(seconds=answer["seconds"], ids=answer["ids"])

        return decode


@torch.no_grad()
def visited_experts(model: Transformer, ids_BS: Tensor) -> float:
    """Mean number of experts per layer that one decoding step of all sequences reads."""
    counts: list[int] = []

    def look(layer: Any, inputs: tuple[Any, ...]) -> None:
        x_BSD, norm_D, eps = inputs[:3]
        logits_TE = (rms_norm(x_BSD, norm_D, eps) @ layer.w_router_DE).flatten(0, 1)
        scores_TE = logits_TE.sigmoid() if layer.shape.gate == "sigmoid" else logits_TE
        chosen_BSK = choose(scores_TE, layer.bias_E, layer.shape, layer.sizes.top_k).unflatten(0, ids_BS.shape)
        counts.extend(len(chosen_BSK[:, position].unique()) for position in range(PROMPT, ids_BS.shape[1]))

    handles = [layer.register_forward_pre_hook(look) for layer in model.sparse_feed_forwards]
    model(ids_BS)
    for handle in handles:
        handle.remove()
    return float(np.mean(counts))


def weight_bytes(shape: Shape, experts: float) -> float:
    """Bytes of weights that a step reads: with all rows of the tied table, for the logits, and `experts` per layer."""
    expert = 3 * shape.d_model * shape.d_expert
    return 4 * (active_parameters(shape) + shape.sparse_layers * (experts - shape.top_k) * expert)


def read_bandwidth(threads: int) -> dict[str, Any]:
    """Bytes per second of the fastest of several reads of a large array by PyTorch."""
    torch.set_num_threads(threads)
    x_ND = torch.ones(READ_BYTES // 4 // 8192, 8192)
    v_D, x_F = torch.ones(8192), x_ND.flatten()
    reads: dict[str, Callable[[], Tensor]] = {
        "sum": x_F.sum,
        "max": x_F.max,
        "dot": lambda: x_F.dot(x_F),
        "matrix by vector": lambda: x_ND.mv(v_D),
    }
    calls = {name: discard(read) for name, read in reads.items()}
    timings = measure_in_turn(calls, rounds=5, round_seconds=0.1)
    best = min(timings, key=lambda name: timings[name].median_seconds)
    timing = timings[best]
    return {
        "threads": threads,
        "how": f"torch, {best}, {READ_BYTES >> 20} MiB of fp32",
        **timing.record(),
        "bytes_per_second": READ_BYTES / timing.median_seconds,
    }


def last_level_cache() -> str | None:
    """The size of the last-level cache, from Linux."""
    sizes = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    return sizes[-1].read_text().strip() if sizes else None


def discard(call: Callable[[], Any]) -> Callable[[], None]:
    """Call a function and ignore its result."""
    return lambda: (call(), None)[1]


def best_mode(model: Any, prompts: list[list[int]], tokens: int) -> tuple[str, dict[str, float]]:
    """The mode in which `transformers` decodes fastest, and the seconds per step of each mode in a short trial."""
    tried = {mode: min(theirs(model, mode)(prompts, tokens).seconds for _ in range(2)) / (tokens - 1) for mode in MODES}
    return min(tried, key=lambda mode: tried[mode]), tried


def alike(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> int:
    """The number of tokens before the first difference, in the sequence where it is smallest."""
    same_BS = np.array(one) == np.array(other)
    return int(np.cumprod(same_BS, axis=1).sum(1).min())


class Bench:
    """One model, decoded by all candidates."""

    def __init__(self, shape: Shape, folder: Path, llama_python: str | None) -> None:
        self.shape, self.model = shape, loud_model(shape)
        save_checkpoint(self.model, folder)
        self.theirs = hugging_face(folder)
        self.llama = Llama(llama_python, folder) if llama_python and not shape.latent_attention else None

    def close(self) -> None:
        """End llama.cpp's process."""
        if self.llama:
            self.llama.__exit__()

    def candidates(self, mode: str, threads: int) -> dict[str, Decode]:
        """All candidates."""
        decodes = {"sparsedial": ours(self.model), f"transformers {mode}": theirs(self.theirs, mode)}
        if self.llama:
            decodes["llama.cpp"] = self.llama.decode(threads, flash=False)
            decodes["llama.cpp, flash attention"] = self.llama.decode(threads, flash=True)
        return decodes

    @torch.no_grad()
    def differences(self, prompts: list[list[int]]) -> dict[str, float]:
        """Largest difference from our logits behind the prompts, and the spread of ours."""
        ids_BS = torch.tensor(prompts)
        logits_BV = self.model(ids_BS)[:, -1]
        found = {"transformers": self.theirs(ids_BS).logits[:, -1]}
        if self.llama:
            for name, flash in (("llama.cpp", False), ("llama.cpp, flash attention", True)):
                found[name] = torch.tensor(self.llama.read(prompts, 1, torch.get_num_threads(), flash)["logits"])
        largest = {name: float((other_BV - logits_BV).abs().max()) for name, other_BV in found.items()}
        return {**largest, "standard deviation of the logits": float(logits_BV.std())}

    def measure(
        self, batch: int, threads: int, tokens: int, rounds: int, bandwidth: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The decoding of all candidates, in turns."""
        torch.set_num_threads(threads)
        shape, make = self.shape, torch.Generator().manual_seed(1)
        prompts = torch.randint(shape.vocab_size, (batch, PROMPT), generator=make).tolist()
        mode, tried = best_mode(self.theirs, prompts, min(tokens, TRIAL_TOKENS))
        decodes = self.candidates(mode, threads)
        first = {name: decode(prompts, tokens) for name, decode in decodes.items()}  # and warms up
        timings = timed_in_turns(steps_of(decodes, prompts, tokens), rounds)
        found = first["sparsedial"].ids
        ids_BS = torch.tensor([[*prompt, *row[:-1]] for prompt, row in zip(prompts, found, strict=True)])
        experts = visited_experts(self.model, ids_BS)
        read = weight_bytes(shape, experts)
        positions = PROMPT + tokens / 2  # that a step sees, on average
        return {
            "what": f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}, {PROMPT} tokens read, {tokens} made",
            "batch": batch,
            "threads": threads,
            "experts_visited_a_step": experts,
            "experts_visited_if_even": shape.experts * (1 - (1 - shape.top_k / shape.experts) ** batch),
            "weight_bytes_a_step": read,
            "cache_bytes_a_step": 4 * batch * positions * cached_values_per_token(shape),
            "rows": [
                {
                    "name": name,
                    **timing.record(),
                    "tokens_per_second": batch / timing.median_seconds,
                    "share_of_bandwidth": read / timing.median_seconds / bandwidth["bytes_per_second"],
                }
                for name, timing in timings.items()
            ],
            "seconds_a_step_of_transformers_by_mode": tried,
            **ratios(timings, f"transformers {mode}"),
            "largest_difference_of_logits": self.differences(prompts),
            "tokens_before_the_first_unlike_ours": {name: alike(found, run.ids) for name, run in first.items()},
            "distinct_tokens_of_a_sequence": float(np.mean([len(set(row)) for row in found])),
        }


def ratios(timings: dict[str, Timing], transformers: str) -> dict[str, Any]:
    """How many times as fast as each peer; null where it did not run."""
    peers = {
        "transformers": transformers,
        "llama_cpp": "llama.cpp",
        "llama_cpp_flash_attention": "llama.cpp, flash attention",
    }
    return {
        f"speed_against_{key}": ratio(timings, "sparsedial", name) if name in timings else None
        for key, name in peers.items()
    }


def show(name: str, group: dict[str, Any]) -> None:
    """Print what was measured."""
    print(f"{name}, {group['what']}, {group['experts_visited_a_step']:.1f} experts a layer and step", flush=True)
    for row in group["rows"]:
        spread = f"{row['low_seconds'] * 1e3:.2f}–{row['high_seconds'] * 1e3:.2f}"
        rate = f"{row['tokens_per_second']:7.1f} tokens/s, {row['share_of_bandwidth']:.0%} of the bandwidth"
        print(f"  {row['name']:<26} {row['median_seconds'] * 1e3:8.2f} ms a step ({spread}) {rate}", flush=True)
    for key, value in group.items():
        if key.startswith("speed_against") and value:
            print(f"  {key}: {value['value']:.2f} ({value['low']:.2f}–{value['high']:.2f})")
        elif key.startswith(("largest", "tokens_before", "seconds_a_step")):
            print(f"  {key}: {', '.join(f'{who} {number:.3g}' for who, number in value.items())}")


def main() -> None:
    """Measure everything and write the record."""
    parser = argparse.ArgumentParser(description="greedy decoding beside its peers")
    parser.add_argument("--llama-python", help="a Python with gguf, llama-cpp-python and safetensors")
    parser.add_argument("--quick", action="store_true", help="the small model, one thread, few tokens, one round")
    parser.add_argument("--out", type=Path, default=RECORD, help="the record")
    options = parser.parse_args()
    tokens, rounds = (5, 1) if options.quick else (64, 7)
    shapes = {"28M": SHAPES["28M"]} if options.quick else SHAPES
    all_threads = (1,) if options.quick else THREADS
    busy = BusyWatch()
    bandwidths = {threads: read_bandwidth(threads) for threads in all_threads}
    record: dict[str, Any] = {
        "last_level_cache": last_level_cache(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "llama_cpp": None,
        "read_bandwidth": list(bandwidths.values()),
        "models": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in shapes.items():
            bench = Bench(shape, Path(folder) / name, options.llama_python)
            record["llama_cpp"] = bench.llama.about if bench.llama else record["llama_cpp"]
            groups = []
            for threads in all_threads:
                for batch in BATCHES:
                    groups.append(bench.measure(batch, threads, tokens, rounds, bandwidths[threads]))
                    show(name, groups[-1])
            bench.close()
            total = total_parameters(shape)
            record["models"].append(
                {
                    "name": name,
                    "total_parameters": total,
                    "active_parameters": active_parameters(shape),
                    "bytes": 4 * total,
                    "groups": groups,
                }
            )
    record["machine_busy"] = busy.share()
    keep(options.out, "python -m benchmarks.decoding --llama-python PYTHON", record)
    if not options.llama_python:
        print("llama.cpp did not run: --llama-python PYTHON was not given")


if __name__ == "__main__":
    main()
