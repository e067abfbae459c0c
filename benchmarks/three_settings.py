"""One prompt at three settings of a dial, with the joules of each: `python -m benchmarks.three_settings CHECKPOINT`.

CHECKPOINT is one of `python -m examples.two_domains PROSE CODE OUT --tokens 3M`; of another one, name `--settings`, a
`--prompt` with its `--flags`, and the path that pages show. Each setting is a `generate` of its own, as a user types
it, five times in turns. What the one of the median time prints is written to benchmarks/records/three_settings.json;
docs/dial.md and the README show it.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.keeping import keep
from benchmarks.prune_findings_page import NOT_MEASURED
from sparsedial.machine.hardware import BusyWatch

RECORD = Path(__file__).parent / "records" / "three_settings.json"
SETTINGS = "k=6;k=3;k=1"
TURNS = 5  # of which the one of the median time is shown
PROMPT, FLAGS = "The government of the United States", "--tokens 40"
SHOWN = "runs/two_domains/seed_0/checkpoint"


def main() -> None:
    """Ask at each setting, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--settings", default=SETTINGS)
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--flags", default=FLAGS, help="what else `generate` is given")
    parser.add_argument("--shown", default=SHOWN, help="the path in the pages")
    parser.add_argument("--record", type=Path, default=RECORD)
    given = parser.parse_args()
    busy = BusyWatch()
    settings, words = given.settings.split(";"), [given.checkpoint, given.prompt, *shlex.split(given.flags)]
    turns = [{setting: _answer(words, setting) for setting in settings} for _ in range(TURNS)]
    answers = {setting: sorted((turn[setting] for turn in turns), key=_seconds)[TURNS // 2] for setting in settings}
    asked = {"shown": given.shown, "prompt": given.prompt, "flags": given.flags}
    found = {**asked, "answers": answers, "machine_busy": busy.share()}
    keep(given.record, "python -m benchmarks.three_settings CHECKPOINT", found)


def _answer(words: Sequence[str], setting: str) -> dict[str, str]:
    """What is written, and what is said of it."""
    command = [sys.executable, "-m", "sparsedial", "generate", *words, "--setting", setting]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"text": done.stdout.rstrip("\n"), "said": done.stderr.strip().splitlines()[-1]}


def _seconds(answer: Mapping[str, str]) -> float:
    """How long the writing took, as was said."""
    found = re.search(r" in ([\d.]+) (ms|s)\b", answer["said"])
    assert found is not None, answer["said"]
    return float(found[1]) * (1e-3 if found[2] == "ms" else 1)


def settings_screen() -> str:
    """The screen of all three, as a terminal shows it."""
    if not RECORD.exists():
        return NOT_MEASURED
    found = json.loads(RECORD.read_text())
    lines = ["```console"]
    for setting, answer in found["answers"].items():
        asked = f"{found['shown']} {shlex.quote(found['prompt'])} {found['flags']}"
        command = f"sparsedial generate {asked} --setting {setting}"
        lines += [f"$ {command}", answer["text"], answer["said"]]
    return "\n".join([*lines, "```"])


def settings_text() -> str:
    """The same for the README, whose commands are all run by a test: without the commands."""
    if not RECORD.exists():
        return NOT_MEASURED
    answers = json.loads(RECORD.read_text())["answers"]
    lines = [
        line for setting, answer in answers.items() for line in (f"--setting {setting}", answer["text"], answer["said"])
    ]
    return "\n".join(["```text", *lines, "```"])


if __name__ == "__main__":
    main()
