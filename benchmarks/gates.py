"""A share of a dense model's neurons is faster: `python -m benchmarks.gates CHECKPOINT TEXT`.

CHECKPOINT is a dense one that `sparsedial dial CHECKPOINT --measure --text TEXT` has measured; its dial.json gives the
added loss of each setting, its dial.gates which neurons take part. Greedy decoding of windows of TEXT at all settings
of dial.json that differ in neurons alone, in turns, fp32 on the CPU, one sequence and eight together. Beside the times
stands what the bytes of a step allow: all weights but the ups and downs that no sequence needs, keys and values.
Writes benchmarks/records/gates.json. B sequences, S positions, D d_model, F neurons of a layer.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.decoding import Run, ours, steps_of
from benchmarks.keeping import keep
from benchmarks.side_by_side import range_words, ratio, timed_in_turns
from sparsedial.machine.hardware import BusyWatch
from sparsedial.model.attention import rms_norm
from sparsedial.model.checkpoint import load
from sparsedial.model.digests import digest_of
from sparsedial.model.gates import gates_of
from sparsedial.model.transformer import DenseFeedForward, Transformer
from sparsedial.model.turned import at_setting
from sparsedial.pruning.windows import read_windows
from sparsedial.records.dial_file import DialFile
from sparsedial.records.record import plain
from sparsedial.serving.settings import read_dial
from sparsedial.shape.counts import active_parameters, cached_values_per_token
from sparsedial.shape.turned import parse_turned
from sparsedial.text.tokenizer import load_tokenizer

RECORD = Path(__file__).parent / "records" / "gates.json"
PROMPT, BATCHES = 64, (1, 8)


@torch.no_grad()
def shares_read(model: Transformer, ids_BS: Tensor) -> dict[int, float]:
    """By layer, the mean share of ups and downs that a decoding step of all sequences reads."""
    found: dict[int, float] = {}

    def look(number: int, part: DenseFeedForward, inputs: tuple[Any, ...]) -> None:
        x_BSD, norm_D, eps = inputs[:3]
        if part.threshold is None:
            found[number] = 1.0
            return
        h_BSH = rms_norm(x_BSD, norm_D, eps)[:, PROMPT:] @ part.w_in_DH
        ups, downs = part.threshold.open(h_BSH.chunk(2, dim=-1)[0]), part.threshold.activations(h_BSH) != 0
        found[number] = sum(float(read_BSF.any(0).float().mean()) for read_BSF in (ups, downs)) / 2

    parts = [(number, block.feed_forward) for number, block in enumerate(model.blocks)]
    handles = [
        part.register_forward_pre_hook(lambda part, inputs, number=number: look(number, part, inputs))
        for number, part in parts
        if isinstance(part, DenseFeedForward)
    ]
    model(ids_BS)
    for handle in handles:
        handle.remove()
    return found


def read_a_step(model: Transformer, prompts: list[list[int]], run: Run) -> dict[str, float]:
    """The share of neurons and the bytes that a step reads."""
    shape, ids = model.shape, [[*prompt, *row[:-1]] for prompt, row in zip(prompts, run.ids, strict=True)]
    shares = shares_read(model, torch.tensor(ids))
    skipped = sum((1 - share) * 2 * shape.d_model * shape.layer(number).d_ff for number, share in shares.items())
    cached = len(prompts) * (PROMPT + len(run.ids[0]) / 2) * cached_values_per_token(shape)
    return {
        "neurons_read_a_step": float(np.mean(list(shares.values()))),
        "bytes_a_step": 4 * (active_parameters(shape) - skipped + cached),
    }


def measure(models: dict[str, Transformer], prompts: list[list[int]], tokens: int, rounds: int) -> dict[str, Any]:
    """All settings in turns, each beside the first, with what the bytes allow."""
    decodes = {name: ours(model) for name, model in models.items()}
    first = {name: decode(prompts, tokens) for name, decode in decodes.items()}  # and warms up
    timings = timed_in_turns(steps_of(decodes, prompts, tokens), rounds)
    read = {name: read_a_step(model, prompts, first[name]) for name, model in models.items()}
    default = next(iter(models))
    rows = []
    for name, timing in timings.items():
        faster = ratio(timings, name, default)
        allowed = read[default]["bytes_a_step"] / read[name]["bytes_a_step"]
        rows.append(
            {
                "name": name,
                **timing.record(),
                "tokens_per_second": len(prompts) / timing.median_seconds,
                **read[name],
                "times_as_fast": faster,
                "times_fewer_bytes": allowed,
                "share_of_what_bytes_allow": faster["value"] / allowed,
            }
        )
    threads = torch.get_num_threads()
    what = f"batch {len(prompts)}, {threads} threads, {PROMPT} tokens read, {tokens} made"
    return {"what": what, "batch": len(prompts), "threads": threads, "rows": rows}


def show(group: dict[str, Any]) -> None:
    """Print what was measured."""
    print(group["what"], flush=True)
    for row in group["rows"]:
        words = f"{range_words(row['times_as_fast'])} times as fast, bytes allow {row['times_fewer_bytes']:.2f}"
        read = f"{row['neurons_read_a_step']:.0%} of the neurons read"
        print(f"  {row['name']:14} {row['tokens_per_second']:7.1f} tokens/s, {words}, {read}", flush=True)


def losses_of(dial: DialFile) -> dict[str, Any]:
    """The added loss of each setting that differs from the default in neurons alone, the default first."""
    return {
        point.setting.name: plain(point.loss_increase)
        for point in dial.settings
        if point.setting.name == dial.default or set(point.setting.name.split("=")[:-1]) == {"neurons"}
    }


def main() -> None:
    """Measure both batches and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("text")
    parser.add_argument("--quick", action="store_true", help="few tokens, one round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RECORD, help="the record")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokens, rounds = (9, 1) if options.quick else (48, 7)
    busy, dial, whole = BusyWatch(), read_dial(options.checkpoint), load(options.checkpoint)
    losses = losses_of(dial)
    settings = {name: parse_turned(name) for name in losses}
    gates = gates_of(options.checkpoint, whole.shape, settings.values())
    models = {name: at_setting(whole, setting, gates) for name, setting in settings.items()}
    windows = read_windows(
        [options.text], load_tokenizer(options.checkpoint), vocab_size=whole.shape.vocab_size, context=PROMPT,
        tokens=PROMPT * max(BATCHES), field="text",
    )  # fmt: skip
    prompts = windows.ids_WS1[:, :PROMPT].tolist()
    groups = []
    for batch in BATCHES:
        groups.append(measure(models, prompts[:batch], tokens, rounds))
        show(groups[-1])
    found = {
        "checkpoint": digest_of(options.checkpoint),
        "text": "/".join(Path(options.text).parts[-2:]),
        "loss_increase": losses,
        "calibration": plain(dial.calibration),
        "groups": groups,
        "torch": torch.__version__,
        "machine_busy": busy.share(),
    }
    keep(options.out, "python -m benchmarks.gates SMOLLM2 TEXT", found)


if __name__ == "__main__":
    main()
