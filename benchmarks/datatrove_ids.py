"""Does datatrove leave out the same documents? `python -m benchmarks.datatrove_ids TEXT FOLDER --peer PYTHON`.

`select` reads a text itself, and writes its script for datatrove (`--emit datatrove`). PYTHON runs the script with
datatrove's local executor: that of an environment with datatrove and orjson beside what sparsedial needs. Both leave
out near copies at 0.8 and what breaks the rules of Gopher and FineWeb. FOLDER holds both results; a selection that is
there is not made again. Writes benchmarks/records/datatrove_ids.json: how many documents stay, and which by one alone.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import polars

from benchmarks.keeping import keep
from sparsedial.records.record import read
from sparsedial.records.selection import SELECT_FILE, Selected
from sparsedial.text.manifest import MANIFEST
from sparsedial.verbs.select.emitted import FILE

RECORD = Path(__file__).parent / "records" / "datatrove_ids.json"
ASKED = ["--near", "0.8", "--quality", "gopher,fineweb"]


def main() -> None:
    """Let both select, and write the record."""
    asked = argparse.ArgumentParser()
    asked.add_argument("text", type=Path)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--peer", required=True)
    given = asked.parse_args()
    ours, theirs = given.folder / "kept", given.folder / "pipeline"
    if not ours.exists():
        _select(given.text, ours)
    if not theirs.exists():
        _select(given.text, theirs, "--emit", "datatrove")
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    subprocess.run([given.peer, str(theirs / FILE)], check=True, env={**os.environ, "PYTHONPATH": path})
    rows = polars.read_parquet(ours / MANIFEST)
    stay = set(rows.filter("kept")["id"])
    files = (theirs / "kept").glob("*.jsonl.gz")
    trove = {json.loads(line)["id"] for file in files for line in gzip.decompress(file.read_bytes()).splitlines()}
    answer = read(ours / SELECT_FILE, Selected)
    found = {
        "asked": ASKED,
        "read": answer.read,
        "stay": len(stay),
        "stay_by_datatrove": len(trove),
        "by_select_alone": sorted(stay - trove),
        "by_datatrove_alone": sorted(trove - stay),
        "left_out": {one.name: one.removed.documents for one in answer.filters if one.removed.documents},
    }
    keep(RECORD, "python -m benchmarks.datatrove_ids TEXT FOLDER --peer PYTHON", found)
    print(json.dumps({name: found[name] for name in ("stay", "stay_by_datatrove", "by_select_alone")}))


def _select(text: Path, out: Path, *more: str) -> None:
    command = [sys.executable, "-m", "sparsedial", "select", str(text), *ASKED, *more, "--out", str(out)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
