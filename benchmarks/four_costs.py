"""The four costs of turning parts off: `python -m benchmarks.four_costs SMOLLM2 SPARSE STUDY --text PROSE --code CODE`.

SMOLLM2 is SmolLM2-135M-Instruct (`python -m benchmarks.smollm2 SMOLLM2`), SPARSE a checkpoint of
`python -m examples.two_domains PROSE CODE OUT`, STUDY the model that a study's law plans: `make study`,
`sparsedial plan --flops 3e13 --law runs/study --out larger.json`, `sparsedial train larger.json --out STUDY`. Each is
pruned by `prune` in ways that save different costs. PROSE calibrates the first two and CODE, which is Python, the
third; what is scored is held out of the scores. Of the sparse ones a lower k of the dial stands beside the cuts; it
removes nothing. Folders in WORK that are there already are not made again, so the second run only measures. It takes
10 minutes.

Loss is added nats per token on that text, and that of random choices of as much stands beside it. Speed, memory and
energy are those of one sequence, as `prune` and `dial --measure` state them; all ways are timed in turns.
Writes benchmarks/records/four_costs.json, from which `benchmarks.four_costs_page` draws docs/figures/four_costs.svg.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import sparsedial
from benchmarks.four_costs_page import FIGURE, LOWER_K, RECORD, WHOLE, picture
from benchmarks.keeping import keep
from sparsedial.machine.hardware import BusyWatch
from sparsedial.model.checkpoint import load
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.turned import at_setting
from sparsedial.pruning.quality import nats_of
from sparsedial.pruning.sizing import weight_bytes
from sparsedial.pruning.speed import Place, speeds_of
from sparsedial.pruning.windows import context_of, read_windows
from sparsedial.records.prune import PRUNE_FILE, Pruned
from sparsedial.records.quantities import Interval
from sparsedial.records.record import read
from sparsedial.shape.config import read_config
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.turned import Turned, parse_turned
from sparsedial.store import write_atomically
from sparsedial.text.tokenizer import load_tokenizer
from sparsedial.units import human_percent

CUTS: Mapping[str, Sequence[tuple[str, float]]] = {  # methods, and the share that stays
    "smollm2": (("block-influence", 0.9), ("activation", 0.9), ("wanda", 0.5)),
    "sparse": (("reap", 0.75), ("reap", 0.5), ("block-influence", 0.75)),
    "study": (("reap", 0.75), ("reap", 0.5), ("block-influence", 0.5)),
}
SETTINGS = {"smollm2": (), "sparse": (LOWER_K,), "study": ("k=1",)}


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to a cheaper model."""

    name: str
    part: str  # that is turned off
    folder: Path
    setting: Turned = Turned()  # noqa: RUF009  # it never changes
    loss: Interval | None = None  # added, nats per token; None for the whole model
    control: float | None = None  # added by random choices of as much


def main() -> None:
    """Prune what is not there yet, measure all of it, and write the record and the picture."""
    given = _parsed()
    torch.set_num_threads(given.threads)
    busy = BusyWatch()
    models = {name: model_row(given, name, folder) for name, folder in given.checkpoints.items()}
    flags = "SMOLLM2 SPARSE STUDY --text PROSE --code CODE"
    found = {"threads": given.threads, "models": models, "machine_busy": busy.share()}
    keep(given.record, f"python -m benchmarks.four_costs {flags}", found)
    write_atomically(given.figure, picture(given.record))


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("smollm2", type=Path)
    parser.add_argument("sparse", type=Path)
    parser.add_argument("study", type=Path)
    parser.add_argument("--text", required=True, metavar="PROSE")
    parser.add_argument("--code", required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/four_costs"))
    parser.add_argument("--calibration-tokens", type=int, default=16_384)
    parser.add_argument("--scored-tokens", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    given = parser.parse_args()
    given.checkpoints = {name: getattr(given, name).resolve() for name in CUTS}
    given.texts = {"smollm2": given.text, "sparse": given.text, "study": given.code}
    return given


def model_row(given: argparse.Namespace, name: str, checkpoint: Path) -> Mapping[str, Any]:
    """A checkpoint and every way to a cheaper one, with the costs of each."""
    pruned = [(method, share, _pruned(given, name, checkpoint, method, share)) for method, share in CUTS[name]]
    ways = [Way(name=WHOLE, part=WHOLE, folder=checkpoint)]
    ways += [_way(given, name, method, share, answer) for method, share, answer in pruned]
    ways += [_turned(given, given.texts[name], checkpoint, words) for words in SETTINGS[name]]
    models = {way.name: at_setting(load(way.folder), way.setting) for way in ways}
    places = {way.name: Place(way.folder, way.setting) for way in ways}
    speeds = speeds_of(models, places.__getitem__)
    shape = read_config(checkpoint)
    return {
        "what": f"{shape.experts} experts, {shape.top_k} for each token" if shape.experts else "dense",
        "total_parameters": total_parameters(shape),
        "calibration": pruned[0][2].calibration,
        "scored_tokens": given.scored_tokens,
        "ways": [
            {
                "name": way.name,
                "part": way.part,
                "loss_increase": way.loss,
                "control_loss_increase": way.control,
                "weight_bytes": weight_bytes(read_checkpoint(way.folder).tensors),
                "prefill_tokens_per_second": speeds[way.name].prefill,
                "decode_tokens_per_second": speeds[way.name].decode,
                "peak_memory_bytes": speeds[way.name].peak_memory_bytes,
                "joules_per_token": speeds[way.name].joules_per_token,
            }
            for way in ways
        ],
    }


def _pruned(given: argparse.Namespace, name: str, checkpoint: Path, method: str, share: float) -> Pruned:
    """What `prune` answers; of an earlier run, where its folder is there."""
    out = _out(given, name, method, share)
    if (out / PRUNE_FILE).exists():
        return read(out / PRUNE_FILE, Pruned)
    answer = sparsedial.prune(
        checkpoint=checkpoint, method=method, keep=share, calibrate=given.texts[name], out=out,
        calibration_tokens=given.calibration_tokens, scored_tokens=given.scored_tokens,
        layer_by_layer=True,  # its speeds are not needed: below all are timed in turns
    )  # fmt: skip
    assert isinstance(answer, Pruned)
    return answer


def _way(given: argparse.Namespace, name: str, method: str, share: float, answer: Pruned) -> Way:
    source = answer.calibration.source
    assert answer.control is not None
    return Way(
        name=f"{method} {human_percent(share)}",
        part=answer.part,
        folder=_out(given, name, method, share),
        loss=answer.loss_increase[source],
        control=answer.control.loss[source].loss - answer.before.loss[source].loss,
    )


def _out(given: argparse.Namespace, name: str, method: str, share: float) -> Path:
    return given.work / f"{name}_{method}_{share:g}"


def _turned(given: argparse.Namespace, text: str, checkpoint: Path, words: str) -> Way:
    """A setting of the dial, scored on the windows that `prune` scores."""
    whole, setting = load(checkpoint), parse_turned(words)
    _, scored = read_windows(
        [text], load_tokenizer(checkpoint), vocab_size=whole.shape.vocab_size,
        context=context_of(whole.shape, None), tokens=given.calibration_tokens + given.scored_tokens, field="calibrate",
    ).divided(given.scored_tokens, given.calibration_tokens)  # fmt: skip
    before, turned = (nats_of(each, {"": scored})[""] for each in (whole, at_setting(whole, setting)))
    return Way(name=words, part="dial", folder=checkpoint, setting=setting, loss=turned.above(before))


if __name__ == "__main__":
    main()
