"""A lower k is faster: greedy decoding at two settings of one model in turns: `python -m benchmarks.dial`.

The 99M shape of `benchmarks/decoding.py` with random weights, fp32 on the CPU, one sequence and eight together; k=6, as
the shape has it, and k=3. Beside the ratio of times stands the one of the bytes that a step reads, which bounds it:
weights of the experts that are visited, all other weights, keys and values.
Writes benchmarks/records/dial.json. B sequences, S positions.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.decoding import CONTEXT, PROMPT, SHAPES, Run, loud_model, ours, steps_of, visited_experts, weight_bytes
from benchmarks.keeping import keep
from benchmarks.side_by_side import range_words, ratio, timed_in_turns
from sparsedial.machine.hardware import BusyWatch
from sparsedial.model.transformer import Transformer
from sparsedial.model.turned import at_setting
from sparsedial.shape.counts import cached_values_per_token
from sparsedial.shape.turned import parse_turned

RECORD = Path(__file__).parent / "records" / "dial.json"
SHAPE, SETTINGS = "99M", ("k=6", "k=3")
BATCHES, AIMS = (1, 8), {1: 1.25, 8: 1.3}  # how many times as fast at least
SHARE = 0.9  # of the ratio of bytes, at least


def bytes_a_step(model: Transformer, prompts: list[list[int]], run: Run) -> tuple[float, float]:
    """Experts that a layer reads in a step, and the bytes that a step reads."""
    ids = [[*prompt, *row[:-1]] for prompt, row in zip(prompts, run.ids, strict=True)]
    experts, positions = visited_experts(model, torch.tensor(ids)), PROMPT + len(run.ids[0]) / 2
    cached = 4 * len(prompts) * positions * cached_values_per_token(model.shape)
    return experts, weight_bytes(model.shape, experts) + cached


def measure(model: Transformer, batch: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Both settings in turns, with the bound."""
    make = torch.Generator().manual_seed(1)
    prompts = torch.randint(model.shape.vocab_size, (batch, PROMPT), generator=make).tolist()
    models = {setting: at_setting(model, parse_turned(setting)) for setting in SETTINGS}
    decodes = {setting: ours(turned) for setting, turned in models.items()}
    first = {setting: decode(prompts, tokens) for setting, decode in decodes.items()}  # and warms up
    timings = timed_in_turns(steps_of(decodes, prompts, tokens), rounds)
    read = {setting: bytes_a_step(models[setting], prompts, first[setting]) for setting in SETTINGS}
    high, low = SETTINGS
    found = ratio(timings, low, high)
    bound = read[high][1] / read[low][1]
    return {
        "what": f"batch {batch}, {torch.get_num_threads()} threads, {PROMPT} tokens read, {tokens} made",
        "batch": batch,
        "threads": torch.get_num_threads(),
        "rows": [
            {
                "name": setting,
                **timings[setting].record(),
                "tokens_per_second": batch / timings[setting].median_seconds,
                "experts_visited_a_step": read[setting][0],
                "bytes_a_step": read[setting][1],
            }
            for setting in SETTINGS
        ],
        "times_as_fast": found,
        "times_fewer_bytes": bound,
        "share_of_what_bytes_allow": found["value"] / bound,
        "aim": AIMS[batch],
    }


def show(group: dict[str, Any]) -> None:
    """Print what was measured."""
    print(group["what"], flush=True)
    for row in group["rows"]:
        spread = f"{row['low_seconds'] * 1e3:.2f}–{row['high_seconds'] * 1e3:.2f}"
        read = f"{row['bytes_a_step'] / 1e6:.1f} MB, {row['experts_visited_a_step']:.1f} experts a layer"
        print(f"  {row['name']}  {row['median_seconds'] * 1e3:7.2f} ms a step ({spread})  {read}", flush=True)
    words = f"{range_words(group['times_as_fast'])} times as fast; bytes allow {group['times_fewer_bytes']:.2f}"
    print(f"  {words}, of which it is {group['share_of_what_bytes_allow']:.0%} (aims {group['aim']}, {SHARE:.0%})")


def main() -> None:
    """Measure both batches and write the record."""
    parser = argparse.ArgumentParser(description="decoding at two settings of one model")
    parser.add_argument("--quick", action="store_true", help="few tokens, one round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RECORD, help="the record")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokens, rounds = (5, 1) if options.quick else (48, 7)
    assert PROMPT + tokens <= CONTEXT
    busy, model = BusyWatch(), loud_model(SHAPES[SHAPE])
    groups = []
    for batch in BATCHES:
        groups.append(measure(model, batch, tokens, rounds))
        show(groups[-1])
    record = {"model": SHAPE, "settings": SETTINGS, "torch": torch.__version__, "groups": groups}
    keep(options.out, "python -m benchmarks.dial", {**record, "machine_busy": busy.share()})


if __name__ == "__main__":
    main()
