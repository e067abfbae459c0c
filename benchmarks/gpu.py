"""What needs a GPU, in one call: `python -m benchmarks.gpu --budget 420s`.

Each section (benchmarks/gpu_sections.py) runs in a process of its own with a limit of its own. When it ends, it appends
one JSON line to benchmarks/records/gpu_CARD.jsonl and prints two lines, with predictions beside measurements. A section
that fails or overruns takes no other along, and what it had found by then is kept, also where this command is ended.
`--sections` chooses some.
`--device cpu --quick` is a rehearsal: the same code at toy sizes, in seconds, and no record.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch

from benchmarks import gpu_layers, gpu_sections, gpu_ways
from benchmarks.gpu_sections import Figures, Place
from sparsedial.machine.hardware import describe
from sparsedial.records.record import plain
from sparsedial.runs.devices import QUEUES
from sparsedial.units import parse_seconds

RECORDS = Path(__file__).parent / "records"
LEAST_SECONDS = 10.0  # that a section needs to find anything: imports alone take some
WHOLE_SHARE = 0.95  # of its time, that one needs which finds nothing without all of it


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section: its limit, what it measures, and what was predicted for an H100 80GB HBM3."""

    seconds: float
    measure: Callable[[Place], Figures]
    predicted: Mapping[str, float]
    spare: bool = False  # left out where the budget does not hold all
    whole: bool = False  # without its full time it finds nothing


SECTIONS = {  # in the order of their worth; predictions: arithmetic, but for `layer` and `card`, measured before
    "card": Section(seconds=40, measure=gpu_sections.card, predicted={"square_product_tflops": 666}),
    "tests": Section(seconds=110, measure=gpu_sections.tests, predicted={"failed": 0, "errors": 0}),
    "waits": Section(
        seconds=50,
        measure=gpu_sections.waits,
        predicted={"sparse_waits": 0, "dense_waits": 0, "sparse_launches": 176, "dense_launches": 92},
    ),
    "step": Section(
        seconds=110,
        measure=gpu_sections.step,
        predicted={"sparse_8k_ms": 53, "dense_8k_ms": 35, "tax_8k": 1.5, "tax_32k": 1.29},
    ),
    "layer": Section(
        seconds=80,
        measure=gpu_layers.layer,
        predicted={
            "olmoe_triton_tflops": 378,
            "olmoe_torch_grouped_tflops": 319,
            "olmoe_times_grouped": 1.19,
            "deepseek_triton_tflops": 373,
            "deepseek_torch_grouped_tflops": 402,
            "deepseek_times_grouped": 0.93,
        },
    ),
    "small": Section(seconds=30, measure=gpu_sections.small, predicted={"sparse_32_ms": 15.5}, spare=True),
    "replay": Section(
        seconds=60,
        measure=gpu_sections.replay,
        predicted={
            "sparse_32_replayed_ms": 1.0,
            "dense_32_replayed_ms": 0.6,
            "sparse_32_one_by_one_ms": 15.5,
            "streams_8_times_one": 4,
        },
    ),
    "study": Section(seconds=175, measure=gpu_sections.study, predicted={"accepted": 1}, whole=True),
    "at_once": Section(
        seconds=80,
        measure=gpu_ways.at_once,
        predicted={"streams_8_times_one": 4, "processes_8_times_one": 5},
        spare=True,
    ),
    "compiled": Section(seconds=120, measure=gpu_ways.compiled, predicted={}, spare=True),
    "profile": Section(seconds=30, measure=gpu_sections.profile, predicted={}, spare=True),
    "liger": Section(seconds=200, measure=gpu_layers.liger, predicted={}, spare=True),
    "long_study": Section(
        seconds=345,
        measure=partial(gpu_sections.study, time_limit="5m"),
        predicted={"accepted": 1},
        spare=True,
        whole=True,
    ),
}


def chosen(names: Sequence[str], budget: float) -> list[str]:
    """The sections to run: those that are named, or all that the budget has room for without the spare ones."""
    if names:
        return [name for name in SECTIONS if name in names]
    room = sum(section.seconds for section in SECTIONS.values()) <= budget
    return [name for name, section in SECTIONS.items() if room or not section.spare]


def limits(names: Sequence[str], budget: float) -> dict[str, float]:
    """The least seconds that each section is sure of: its own, or where the budget is short a share of them.

    What finds nothing without its full time has it where half of the budget is left for the others, else nothing.
    """
    others = sum(SECTIONS[name].seconds for name in names if not SECTIONS[name].whole)
    sure, left = dict.fromkeys(names, 0.0), budget
    for name in names:
        if SECTIONS[name].whole and SECTIONS[name].seconds <= left - min(others, budget / 2):
            sure[name] = SECTIONS[name].seconds
            left -= sure[name]
    share = min(1.0, left / max(others, 1e-9))
    return {name: sure[name] if SECTIONS[name].whole else share * SECTIONS[name].seconds for name in names}


def run(
    name: str, limit: float, place: Place, command: Sequence[str] | None = None, record: Path | None = None
) -> dict[str, Any]:
    """One section in a process of its own: its line of the record.

    What it prints lies beside the record until then, so that nothing is lost with this process.
    """
    flags = ["--device", place.device, "--limit", str(limit), *(["--quick"] if place.quick else [])]
    command = command or [sys.executable, "-m", "benchmarks.gpu", "--one", name, *flags]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        found = Path(folder) / "found" if record is None else _part(record, name)
        with found.open("wb") as out, said.open("wb") as errors:
            status = _ended(command, limit, out, errors)
        figures, words = _figures(found), said.read_text(errors="replace")[-2000:]
    return {
        "section": name,
        "status": status,
        "seconds": time.perf_counter() - began,
        "limit_seconds": limit,
        "figures": figures,
        "predicted": {} if place.quick else dict(SECTIONS[name].predicted),
        "reason": words if status == "failed" else None,
        "said": words if status != "failed" and words.strip() else None,  # as where a GPU refuses a capture
    }


def _ended(command: Sequence[str], limit: float, out: IO[bytes], errors: IO[bytes]) -> str:
    """How a command ended; with it end the processes that it started."""
    child = subprocess.Popen(command, stdout=out, stderr=errors, start_new_session=True, cwd=gpu_sections.ROOT)
    try:
        return "done" if child.wait(limit) == 0 else "failed"
    except subprocess.TimeoutExpired:
        return "overran"
    except (KeyboardInterrupt, SystemExit):  # of this process
        return "stopped"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _figures(found: Path) -> dict[str, Any]:
    """What a section printed, but for lines of others and one that was cut short."""
    figures: dict[str, Any] = {}
    for line in found.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            figures |= json.loads(line) if line.startswith("{") else {}
    return figures


def _part(record: Path, name: str) -> Path:
    """Where the figures of a section lie while it runs."""
    return record.with_suffix(f".{name}.part")


def recover(record: Path | None) -> None:
    """Add what a section had found when this command was ended with it, earlier."""
    for part in [] if record is None else sorted(record.parent.glob(f"{record.stem}.*.part")):
        name = part.suffixes[-2].removeprefix(".")
        append(record, {"section": name, "status": "killed", "figures": _figures(part)})
        part.unlink()


def age() -> float:
    """Seconds since this process began: importing PyTorch alone takes some."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def lines(row: Mapping[str, Any]) -> tuple[str, str]:
    """What is printed of a section: how it ended, and its numbers over those predicted."""
    words = []
    for name, value in row["figures"].items():
        if isinstance(value, (int, float)):
            predicted = row["predicted"].get(name)
            words.append(f"{name} {value:.4g}" + ("" if predicted is None else f" (predicted {predicted:g})"))
    words_of_it = row["reason"] or row["said"]
    reason = "" if words_of_it is None else f": {_last_line(words_of_it)}"
    ended = f"{row['section']}: {row['status']} in {row['seconds']:.1f} s of {row['limit_seconds']:.0f} s{reason}"
    return ended, "  " + ("; ".join(words) or "no figures")


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def record_of(device: str) -> Path:
    """The file that holds a card's lines."""
    name = torch.cuda.get_device_name() if device == "cuda" else device
    return RECORDS / f"gpu_{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}.jsonl"


def append(path: Path | None, row: Mapping[str, Any]) -> None:
    """Add a line to the record, at once on the disk."""
    if path is None:
        return
    with path.open("a") as file:
        file.write(json.dumps(plain(row)) + "\n")


def main() -> None:
    """Run the sections one after the other within the budget, or one of them here."""
    parser = argparse.ArgumentParser(description="what needs a GPU")
    parser.add_argument("--budget", type=parse_seconds, default=420.0, help="seconds for all sections, like 420s")
    parser.add_argument("--sections", default="", help=f"some of {','.join(SECTIONS)}, or their numbers")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="toy sizes; nothing is written")
    parser.add_argument("--one", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, default=math.inf, help=argparse.SUPPRESS)  # of that one, in seconds
    options = parser.parse_args()
    os.environ.setdefault(*QUEUES)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU here: nothing is measured; try --device cpu --quick")
    place = Place(options.device, options.quick, options.limit)
    if options.one:
        for name, value in SECTIONS[options.one].measure(place):
            print(json.dumps({name: value}), flush=True)
        return
    names = [list(SECTIONS)[int(word) - 1] if word.isdigit() else word for word in options.sections.split(",") if word]
    if unknown := [name for name in names if name not in SECTIONS]:
        raise SystemExit(f"no section named {unknown[0]}; there are {', '.join(SECTIONS)}")
    path = None if options.quick else record_of(options.device)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    recover(path)
    command = "python -m benchmarks.gpu " + " ".join(sys.argv[1:])
    append(path, {"command": command.strip(), "machine": describe(), "at": time.strftime("%Y-%m-%dT%H:%M:%S")})
    names = chosen(names, options.budget)
    least = limits(names, options.budget)
    for at, name in enumerate(names):
        left = options.budget - age() - sum(least[later] for later in names[at + 1 :])
        limit = min(SECTIONS[name].seconds, left)
        if limit < (WHOLE_SHARE * SECTIONS[name].seconds if SECTIONS[name].whole else LEAST_SECONDS):
            row = {**dict.fromkeys(("reason", "said")), "section": name, "status": "left out", "seconds": 0.0}
            row |= {"limit_seconds": max(0.0, limit), "figures": {}, "predicted": {}}
        else:
            row = run(name, limit, place, record=path)
        append(path, row)
        if path is not None:
            _part(path, name).unlink(missing_ok=True)
        print(*lines(row), sep="\n", flush=True)
        if row["status"] == "stopped":
            raise SystemExit(1)


if __name__ == "__main__":
    main()
