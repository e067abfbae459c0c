"""Turning parts off beside llm-compressor:
`python -m benchmarks.prune_peers SMOLLM2 SPARSE --peer PYTHON --texts PROSE CODE`.

SMOLLM2 is SmolLM2-135M-Instruct (`python -m benchmarks.smollm2 SMOLLM2`), SPARSE a checkpoint of
`python -m examples.two_domains PROSE CODE OUT`, and PYTHON that of an environment that llm-compressor has for itself:

    python -m venv PEER && PEER/bin/pip install llmcompressor==0.14.0.1 torch==2.13.0

llm-compressor calibrates Qwen3-MoE without a causal mask (`prune_candidates` says why). So it is given one here; which
experts it keeps without one is recorded too, as `as_it_comes`.

Sections: which experts both keep by REAP, layer after layer, of SPARSE (`reap qwen3_moe`) and of a like model with
groups of experts, which is trained briefly in WORK (`reap deepseek_v3`); and `wanda` and `sparsegpt` at half of the
weights, any and 2:4. `--only` names some. Each pruning is a process of its own, from the checkpoint on disk to the
smaller one on disk. Of weights the two are timed in turns, as many as `--minutes` allow, and both losses are measured
on the same held-out windows by one scorer. A section is printed and written to benchmarks/records/prune_peers.json as
it ends; the others of the record stay. W windows, S positions.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import sparsedial
from benchmarks.keeping import keep
from benchmarks.process_memory import tree_peaks
from examples.two_domains import RECIPE, SHAPE
from sparsedial.machine.hardware import BusyWatch
from sparsedial.model.checkpoint import load
from sparsedial.pruning.quality import Nats, nats_of
from sparsedial.pruning.windows import Windows, read_windows, spread
from sparsedial.records.record import plain
from sparsedial.shape.config import load_config, read_config
from sparsedial.text.tokenizer import load_tokenizer

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benchmarks" / "records" / "prune_peers.json"
OURS, PEER = "ours", "llm-compressor"
CALIBRATION_TOKENS, SCORED_TOKENS, CONTEXT = 8192, 4096, 1024
REAP_TOKENS = 16_384
GROUPED: dict[str, Any] = {  # a model like examples/two_domains.py, as DeepSeek-V3
    **SHAPE, "qk_norm": "none", "kv_lora_rank": 64, "nope_head_dim": 16, "rope_head_dim": 16, "v_head_dim": 32,
    "dense_layers": 1, "d_ff": 432, "gate": "sigmoid", "routing_bias": True, "routed_scaling": 2.5, "expert_groups": 8,
    "kept_groups": 4, "shared_experts": 1,
}  # fmt: skip
GROUPED_TOKENS = "400k"
CLOSE_SCORES = 1e-4  # relative; experts nearer than this may swap by rounding
STRENGTHS = (0.75, 0.5)
WEIGHTS = {"wanda": None, "wanda 2:4": "2:4", "sparsegpt": None, "sparsegpt 2:4": "2:4"}
REAP = ("reap qwen3_moe", "reap deepseek_v3")
BARS = {"loss_relative": 0.01, "seconds_ratio": 0.8, "peak_bytes_ratio": 0.8}


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What one process did."""

    seconds: float  # without imports
    wall_seconds: float
    peak_bytes: int  # of the process and its children
    machine_busy: float | None
    kept: list[list[int]] | None  # experts of each sparse layer
    scores: list[list[float]] | None
    out: Path


def main() -> None:
    """All sections, or some; the record keeps the others."""
    given = _parsed()
    given.work.mkdir(parents=True, exist_ok=True)
    done: dict[str, Any] = json.loads(RECORD.read_text())["sections"] if RECORD.exists() else {}
    until, setup = time.monotonic() + 60 * given.minutes, Setup(given)
    asked = (*REAP, *WEIGHTS) if given.only is None else tuple(given.only.split(","))
    for name in (name for name in REAP if name in asked):
        _store(done, name, reap_row(setup, name))
    weights = [name for name in WEIGHTS if name in asked]
    sections = WeightSections(setup) if weights else None
    for turn in range(given.turns):
        for name in weights:
            assert sections is not None
            if not turn or time.monotonic() + sections.seconds(name) < until:
                _store(done, name, sections.row(name))


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("smollm2", type=Path)
    parser.add_argument("sparse", type=Path)
    parser.add_argument("--peer", required=True, metavar="PYTHON")
    parser.add_argument("--texts", nargs=2, required=True, metavar=("PROSE", "CODE"))
    parser.add_argument("--work", type=Path, default=Path("runs/prune_peers"))
    parser.add_argument("--only", help="names of sections, with commas between")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5, help="of each section of weights, at most")
    parser.add_argument("--minutes", type=float, default=12.0, help="after them no second turn begins")
    return parser.parse_args()


def _store(done: dict[str, Any], name: str, row: Mapping[str, Any]) -> None:
    """Print a section that has ended, and write the record."""
    done[name] = row
    print(name, json.dumps(plain(row)), flush=True)
    flags = "SMOLLM2 SPARSE --peer PYTHON --texts PROSE CODE"
    sections = {each: done[each] for each in (*REAP, *WEIGHTS) if each in done}
    keep(RECORD, f"python -m benchmarks.prune_peers {flags}", {"bars": BARS, "sections": sections})


class Setup:
    """The given checkpoints, texts and programs."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given

    def pruned(self, candidate: str, name: str, job: Mapping[str, Any]) -> Pruned:
        """Prune in a process of its own; what an earlier one wrote goes first."""
        given = self.given
        out = (given.work / f"{file_name(name)}_{candidate}").resolve()
        shutil.rmtree(out, ignore_errors=True)
        file = out.with_suffix(".job")
        job = {
            "candidate": candidate,
            "threads": given.threads,
            "batch": 1,
            "causal": True,
            "pattern": None,
            "sequential": False,
            **job,
        }
        file.write_text(json.dumps({**job, "out": str(out)}))
        words = [sys.executable if candidate == OURS else given.peer, "-m", "benchmarks.prune_candidates", str(file)]
        busy, began = BusyWatch(), time.perf_counter()
        with out.with_suffix(".log").open("w+") as log:
            process = subprocess.Popen(words, cwd=ROOT, text=True, stdout=log, stderr=subprocess.STDOUT)
            peaks = tree_peaks(process)
            wall_seconds = time.perf_counter() - began
            log.seek(0)
            printed = log.read().splitlines()
        if process.returncode:
            raise SystemExit(f"{' '.join(words)} ended with {process.returncode}; see {log.name}")
        return of_answer(json.loads(printed[-1]), peaks, process.pid, wall_seconds, busy.share(), out)

    def windows(self, checkpoint: Path, texts: Sequence[str], context: int, tokens: int) -> Windows:
        """Evenly spread windows of texts as a checkpoint reads them."""
        vocab_size, tokenizer = read_config(checkpoint).vocab_size, load_tokenizer(checkpoint)
        return read_windows(texts, tokenizer, vocab_size=vocab_size, context=context, tokens=tokens, field="calibrate")

    def saved(self, name: str, windows: Windows) -> str:
        """The file that both candidates read windows from."""
        file = self.given.work / f"{name}.npy"
        np.save(file, windows.ids_WS1)
        return str(file.resolve())


def file_name(section: str) -> str:
    """A section's name as folders have it."""
    return section.replace(" ", "_").replace(":", "_")


def of_answer(
    answer: Mapping[str, Any], peaks: Mapping[int, int], pid: int, wall_seconds: float, busy: float | None, out: Path
) -> Pruned:
    """What a process said, and what was seen of it."""
    children = sum(peak for each, peak in peaks.items() if each != pid)
    return Pruned(
        seconds=answer["seconds"],
        wall_seconds=wall_seconds,
        peak_bytes=answer["peak_bytes"] + children,
        machine_busy=busy,
        kept=answer["kept"],
        scores=answer.get("scores"),
        out=out,
    )


def grouped_checkpoint(given: argparse.Namespace) -> Path:
    """A model with groups of experts, trained briefly; one of an earlier run is found."""
    folder = given.work / "grouped"
    if not (folder / "checkpoint" / "config.json").exists():
        sparsedial.train(
            text=tuple(given.texts), tokens=GROUPED_TOKENS, tokenizer="bpe:4096", shape=GROUPED, recipe=RECIPE,
            out=folder,
        )  # fmt: skip
    return folder / "checkpoint"


def reap_row(setup: Setup, name: str) -> Mapping[str, Any]:
    """Which experts both keep, layer after layer, at each strength."""
    given = setup.given
    checkpoint = given.sparse if name == REAP[0] else grouped_checkpoint(given)
    shape = read_config(checkpoint)
    windows = setup.windows(checkpoint, given.texts, shape.context, REAP_TOKENS)
    job = {
        "checkpoint": str(checkpoint.resolve()), "windows": setup.saved("reap", windows), "method": "reap",
        "sequential": True,
    }  # fmt: skip
    rows = {}
    for strength in STRENGTHS:
        ours = setup.pruned(OURS, name, {**job, "keep": strength})
        assert ours.kept is not None
        assert ours.scores is not None
        rows[f"{strength:g}"] = row = {}
        for words, causal in (("causal", True), ("as_it_comes", False)):
            theirs = setup.pruned(PEER, name, {**job, "keep": strength, "causal": causal})
            assert theirs.kept is not None
            row[words] = compare_kept(ours.kept, theirs.kept, ours.scores)
    return {
        "family": load_config(checkpoint).get("model_type"),
        "experts": shape.experts,
        "top_k": shape.top_k,
        "expert_groups": shape.expert_groups,
        "tokens": windows.tokens,
        "strengths": rows,
    }


def compare_kept(
    ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]
) -> Mapping[str, Any]:
    """How many experts of all layers only one of both keeps, and whether rounding decides between their scores.

    An expert that only we keep has a score above one that only they keep; the gap is relative to the larger.
    """
    different, largest = 0, 0.0
    for our, their, score in zip(ours, theirs, scores, strict=True):
        only_our, only_their = ([score[expert] for expert in set(a) - set(b)] for a, b in ((our, their), (their, our)))
        different += len(only_our)
        if max(only_our, default=0.0) > 0:  # without a token all scores are 0, and any of them may stay
            largest = max(largest, 1 - min(only_their) / max(only_our))
    return {
        "layers": len(ours),
        "kept": sum(map(len, ours)),
        "different": different,
        "largest_gap_relative": largest if different else None,
        "holds": largest <= CLOSE_SCORES,
    }


class WeightSections:
    """Wanda and SparseGPT on SmolLM2, turn after turn."""

    def __init__(self, setup: Setup) -> None:
        self.setup, folder = setup, setup.given.smollm2
        windows = setup.windows(folder, setup.given.texts[:1], CONTEXT, 5 * SCORED_TOKENS)
        calibrating, self.scored = windows.divided(SCORED_TOKENS)
        count = len(calibrating.ids_WS1)
        self.calibrating = calibrating.pick(spread(count, CALIBRATION_TOKENS // CONTEXT))
        self.job = {
            "checkpoint": str(folder.resolve()), "windows": setup.saved("weights", self.calibrating), "keep": 0.5,
        }  # fmt: skip
        self.whole = self.nats(folder)
        self.runs: dict[str, list[tuple[Pruned, Pruned]]] = {name: [] for name in WEIGHTS}
        self.losses: dict[str, tuple[Nats, Nats]] = {}

    def nats(self, folder: Path) -> Nats:
        """The loss of a checkpoint."""
        return nats_of(load(folder), {"text": self.scored})["text"]

    def seconds(self, name: str) -> float:
        """How long a turn of a section took."""
        return sum(run.wall_seconds for run in self.runs[name][-1]) if self.runs[name] else 0.0

    def row(self, name: str) -> Mapping[str, Any]:
        """A section after one more turn."""
        job = {**self.job, "method": name.split()[0], "pattern": WEIGHTS[name]}
        turn = [self.setup.pruned(who, name, job) for who in self.order(name)]
        ours, theirs = turn if self.order(name)[0] == OURS else turn[::-1]
        self.runs[name].append((ours, theirs))
        if name not in self.losses:
            self.losses[name] = self.nats(ours.out), self.nats(theirs.out)
        return {
            "tokens": self.calibrating.tokens,
            "scored_tokens": self.scored.tokens,
            "threads": self.setup.given.threads,
            **losses_row(self.whole, *self.losses[name]),
            **times_row(self.runs[name]),
        }

    def order(self, name: str) -> tuple[str, str]:
        """Who begins, in turns."""
        return (PEER, OURS) if len(self.runs[name]) % 2 else (OURS, PEER)


def losses_row(whole: Nats, ours: Nats, theirs: Nats) -> Mapping[str, Any]:
    """Losses on the same windows, nats per token, and how far ours is from theirs."""
    apart = ours.above(theirs)
    return {
        "loss_whole": whole.mean,
        "loss_ours": ours.mean,
        "loss_peer": theirs.mean,
        "loss_apart": apart,
        "loss_relative": (ours.mean - theirs.mean) / theirs.mean,
    }


def times_row(runs: Sequence[tuple[Pruned, Pruned]]) -> Mapping[str, Any]:
    """Seconds and peak memory of both, and ours over theirs, turn by turn."""
    found: dict[str, Any] = {"turns": len(runs), "machine_busy": [run.machine_busy for turn in runs for run in turn]}
    for figure in ("seconds", "wall_seconds", "peak_bytes"):
        pairs = [(getattr(ours, figure), getattr(theirs, figure)) for ours, theirs in runs]
        found[f"{figure}_ours"], found[f"{figure}_peer"] = (
            statistics.median(side) for side in zip(*pairs, strict=True)
        )
        ratios = [ours / theirs for ours, theirs in pairs]
        found[f"{figure}_ratio"] = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    return found


if __name__ == "__main__":
    main()
