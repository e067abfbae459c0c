"""Greedy decoding on the CPU beside vLLM, in one run:
`python -m benchmarks.decoding_vllm --vllm PYTHON --allocator FILE --text TEXT NAME=CHECKPOINT …`.

Checkpoints continue windows of TEXT, one sequence and eight together, on two threads: ours and vLLM, with weights in
float32 and in bfloat16 (ours multiplies them in float32 all the same), each vLLM in a process of its own. vLLM runs in
the fastest of four ways, which a short trial finds for each batch: compiled or not, in one process or in its usual
three, always with the OpenMP and the allocator that its pages recommend, and its threads bound. All are
clocked alike: from the first new token, which reading the prompt gives, to the last; vLLM by its engine's own clock.
Runs are taken in turn; vLLM is stopped while it waits for its turn, since its processes may wait by spinning.
benchmarks/vllm_peer.py says what PYTHON is.
Writes benchmarks/records/decoding_vllm.json, where checkpoints that are not named stay.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.decoding import Decode, Run, alike, ours, steps_of
from benchmarks.keeping import keep
from benchmarks.side_by_side import range_words, ratio, timed_in_turns
from benchmarks.vllm_peer import ONE_PROCESS, Vllm, openmp_of
from sparsedial.machine.hardware import BusyWatch
from sparsedial.model.checkpoint import load, load_as_stored
from sparsedial.model.digests import digest_of
from sparsedial.pruning.windows import read_windows
from sparsedial.text.tokenizer import load_tokenizer

RECORD = Path(__file__).parent / "records" / "decoding_vllm.json"
PROMPT, BATCHES = 32, (1, 8)
TRIALS, TRIAL_TOKENS = 4, 17
DTYPES = ("float32", "bfloat16")
NARROW = "sparsedial, bfloat16"
ONE_PROCESS_OR_NOT = (True, False)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to run vLLM."""

    compiled: bool
    one_process: bool

    def __str__(self) -> str:
        processes = "one process" if self.one_process else "three processes"
        return f"{'compiled' if self.compiled else 'not compiled'}, {processes}"


def environment_of(one_process: bool) -> dict[str, str]:
    """Where vLLM's threads run; in one process, by what it would set for its worker."""
    cores = ",".join(map(str, range(torch.get_num_threads())))
    if not one_process:
        return {"VLLM_CPU_OMP_THREADS_BIND": cores}
    places = f"granularity=fine,explicit,proclist=[{cores}]"
    threads = str(torch.get_num_threads())
    return {**ONE_PROCESS, "OMP_NUM_THREADS": threads, "KMP_AFFINITY": places, "KMP_BLOCKTIME": "5"}


class Bench:
    """One checkpoint, continued by ours and by vLLM."""

    def __init__(self, folder: Path, given: argparse.Namespace, work: Path, tokens: int) -> None:
        self.folder, self.python, self.work, self.tokens = folder, given.vllm, work, tokens
        self.model, self.narrow = load(folder), load_as_stored(folder, "bfloat16")
        self.preloaded = ":".join([*([given.allocator] if given.allocator else []), openmp_of(given.vllm)])
        windows = read_windows(
            [given.text], load_tokenizer(folder), vocab_size=self.model.shape.vocab_size, context=PROMPT,
            tokens=PROMPT * max(BATCHES), field="text",
        )  # fmt: skip
        self.prompts: list[list[int]] = windows.ids_WS1[:, :PROMPT].tolist()

    def started(self, one_process: bool) -> Vllm:
        """vLLM, with nothing open."""
        environment = {**environment_of(one_process), "LD_PRELOAD": self.preloaded}
        return Vllm(self.python, self.work / "log", {**environment, "VLLM_CACHE_ROOT": str(self.work / "cache")})

    def open(self, vllm: Vllm, way: Way, dtype: str) -> None:
        """Let vLLM open this checkpoint."""
        length, most = PROMPT + self.tokens, max(BATCHES)
        vllm.open(self.folder, length=length, sequences=most, dtype=dtype, eager=not way.compiled)

    def tried(self) -> dict[str, dict[Way, dict[int, float]]]:
        """Seconds a step of each way in a short trial, by dtype, way and batch."""
        found: dict[str, dict[Way, dict[int, float]]] = {dtype: {} for dtype in DTYPES}
        for one_process in ONE_PROCESS_OR_NOT:
            with self.started(one_process) as vllm:
                for dtype, compiled in product(DTYPES, (True, False)):
                    way = Way(compiled=compiled, one_process=one_process)
                    self.open(vllm, way, dtype)
                    of_batch = {batch: shortest(vllm, self.prompts[:batch]) for batch in BATCHES}
                    found[dtype][way] = of_batch
                    print(f"  trial: {dtype}, {way}: {of_batch}", flush=True)
        return found

    def measure(self, batch: int, ways: Mapping[str, Way], rounds: int) -> dict[str, Any]:
        """Ours and vLLM in turns."""
        prompts, names = self.prompts[:batch], {dtype: f"vLLM, {dtype}" for dtype in ways}
        with ExitStack() as stack:
            opened = {names[dtype]: stack.enter_context(self.started(way.one_process)) for dtype, way in ways.items()}
            for dtype, way in ways.items():
                self.open(opened[names[dtype]], way, dtype)
            decodes: dict[str, Decode] = {
                "sparsedial": ours(self.model),
                NARROW: ours(self.narrow),
                **{name: decoded_by(vllm) for name, vllm in opened.items()},
            }
            first = {name: decode(prompts, self.tokens) for name, decode in decodes.items()}  # and warms up
            timings = timed_in_turns(steps_of(decodes, prompts, self.tokens), rounds)
            version = next(iter(opened.values())).about["version"]
        threads = torch.get_num_threads()
        return {
            "what": f"batch {batch}, {threads} threads, {PROMPT} tokens read, {self.tokens} made",
            "batch": batch,
            "threads": threads,
            "vllm": version,
            "rows": [
                {"name": name, **timing.record(), "tokens_per_second": batch / timing.median_seconds}
                for name, timing in timings.items()
            ],
            "ways_of_vllm": {names[dtype]: str(way) for dtype, way in ways.items()},
            "speed_against": {name: ratio(timings, "sparsedial", name) for name in opened},
            "speed_in_bfloat16_against": {
                name: ratio(timings, NARROW, name) for name in ("sparsedial", names["bfloat16"])
            },
            "tokens_before_the_first_unlike_ours": {
                name: alike(first["sparsedial"].ids, run.ids) for name, run in first.items()
            },
        }


def decoded_by(vllm: Vllm) -> Decode:
    """vLLM's decoding; it is stopped before and after."""

    def decode(prompts: list[list[int]], tokens: int) -> Run:
        with vllm.going():
            answer = vllm.go_on(prompts, tokens)
        return Run(seconds=answer["seconds"], ids=answer["ids"])

    return decode


def shortest(vllm: Vllm, prompts: list[list[int]]) -> float:
    """Seconds a step of the best of some short decodings."""
    return min(vllm.go_on(prompts, TRIAL_TOKENS)["seconds"] for _ in range(TRIALS)) / (TRIAL_TOKENS - 1)


def fastest(tried: Mapping[Way, Mapping[int, float]], batch: int) -> Way:
    """The way of the least seconds a step."""
    return min(tried, key=lambda way: tried[way][batch])


def show(name: str, group: Mapping[str, Any]) -> None:
    """Print what was measured."""
    print(f"{name}, {group['what']}", flush=True)
    for row in group["rows"]:
        spread = f"{row['low_seconds'] * 1e3:.2f}–{row['high_seconds'] * 1e3:.2f}"
        words = f"{row['median_seconds'] * 1e3:8.2f} ms a step ({spread}) {row['tokens_per_second']:7.1f} tokens/s"
        way = group["ways_of_vllm"].get(row["name"], "")
        same = group["tokens_before_the_first_unlike_ours"][row["name"]]
        print(f"  {row['name']:<20} {words}  the first {same} tokens as ours  {way}", flush=True)
    for ours_in, key in (("", "speed_against"), (" in bfloat16", "speed_in_bfloat16_against")):
        for peer, value in group[key].items():
            print(f"  speed{ours_in} against {peer}: {range_words(value)}", flush=True)


def measured(name: str, bench: Bench, rounds: int) -> dict[str, Any]:
    """One checkpoint at all batches."""
    tried = bench.tried()
    groups = []
    for batch in BATCHES:
        groups.append(bench.measure(batch, {dtype: fastest(tried[dtype], batch) for dtype in DTYPES}, rounds))
        show(name, groups[-1])
    seconds = {dtype: {str(way): of_batch for way, of_batch in ways.items()} for dtype, ways in tried.items()}
    return {"name": name, "checkpoint": digest_of(bench.folder), "seconds_a_step_in_trials": seconds, "groups": groups}


def main() -> None:
    """Measure every checkpoint and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", metavar="NAME=CHECKPOINT")
    parser.add_argument("--vllm", required=True, metavar="PYTHON")
    parser.add_argument("--text", required=True)
    parser.add_argument(
        "--allocator", metavar="FILE", help="libtcmalloc_minimal.so.4, of Debian's libtcmalloc-minimal4"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few tokens, one round")
    parser.add_argument("--out", type=Path, default=RECORD, help="the record")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    tokens, rounds = (TRIAL_TOKENS, 1) if given.quick else (64, 7)
    busy, models = BusyWatch(), {}
    if given.out.exists():
        models = {model["name"]: model for model in json.loads(given.out.read_text())["models"]}
    with tempfile.TemporaryDirectory() as work:
        for name, _, folder in (each.partition("=") for each in given.checkpoints):
            models[name] = measured(name, Bench(Path(folder), given, Path(work), tokens), rounds)
    found = {
        "text": "/".join(Path(given.text).parts[-2:]),
        "torch": torch.__version__,
        "allocator": given.allocator and Path(given.allocator).name,
        "models": list(models.values()),
    }
    words = "python -m benchmarks.decoding_vllm --vllm PYTHON --allocator FILE --text TEXT NAME=CHECKPOINT …"
    keep(given.out, words, {**found, "machine_busy": busy.share()})


if __name__ == "__main__":
    main()
