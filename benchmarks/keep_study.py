"""Keep a finished study as a record: `python -m benchmarks.keep_study runs/reference reference_study`.

Copies study.json, law.json, plan.json, profile.json, the pictures that the docs show, and every run's record into
runs.jsonl.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from sparsedial.store import read_json, write_json

RECORDS = Path(__file__).parent / "records"
FIGURES = Path(__file__).parents[1] / "docs" / "figures"
PICTURES = {  # shown in the docs
    "reference_study": ("verdict", "held_out"),
    "probes_study": ("abilities", "probes"),
    "both_study": ("kept_shares",),
    "optimizers_study": (),
}


def main(study: Path, name: str) -> None:
    """Copy what a reader needs to check the study's numbers."""
    target = RECORDS / name
    target.mkdir(parents=True, exist_ok=True)
    for file in ("study.json", "law.json", "plan.json", "profile.json"):
        if (study / file).exists():
            record = json.loads(_without_paths((study / file).read_text(), study))
            write_json(target / file, record)
    runs = [read_json(path) for path in sorted(study.glob("runs/*/run.json"))]
    (target / "runs.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))
    FIGURES.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES[name]:
        shutil.copyfile(study / "figures" / f"{picture}.svg", FIGURES / f"{picture}.svg")
    print(f"{len(runs)} runs in {target}")


def _without_paths(text: str, study: Path) -> str:
    """The text of a record without the folders of the machine: those of the study and of its sources."""
    text = text.replace(f"{study.parent}/", "runs/")
    for source in read_json(study / "study.json")["text"]["sources"]:
        text = text.replace(source, Path(source).name) if Path(source).is_absolute() else text
    return text


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
