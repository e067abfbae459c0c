"""A whole study at a reduced size, in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from sparsedial.records.launch import JOIN_FILE
from sparsedial.records.study import RunningStudy, Study, read_finished, read_study
from sparsedial.runs.machines.machines import NAME_DIGITS
from tests.started import started

SIZES = ["--budgets", "2.7e9,3.3e9", "--sparsities", "0,0.75", "--context", "16", "--batch", "4", "--seeds", "2"]
SIZES += ["--probes", "8%", "--select", "random", "--keep", "1,.5"]
PATIENCE = 240.0  # seconds, for a machine that is busy with other things


def start(corpus: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    return started("study", str(corpus), *SIZES, "--out", str(out), *more)


def wait_for_runs(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    while len(list(out.glob("runs/*/run.json"))) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)


def stamps(out: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in out.glob("runs/*/run.json")}


def wait_for_door(out: Path, process: subprocess.Popen[str], before: str = "") -> str:
    """The file that lets workers in, once it is another one than before."""
    file = out / JOIN_FILE
    while not file.exists() or file.read_text() == before:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    return file.read_text()


def cells(study: Study) -> dict[tuple[float, int, int], float | None]:
    return {(row.budget_flops, row.experts, row.d_model): row.loss for row in study.cells_table}


def without_cells(finished: Path, out: Path) -> None:
    """A finished study as it was before its last start, without the runs of its smallest budget's cells."""
    cells_table = read_finished(finished / "study.json").cells_table
    least = min(row.budget_flops for row in cells_table)
    lacking = [row.hash[:NAME_DIGITS] for row in cells_table if row.budget_flops == least]
    shutil.copytree(finished.parent / "anew", out, ignore=shutil.ignore_patterns("runs"))
    shutil.copytree(finished / "runs", out / "runs", ignore=shutil.ignore_patterns(*lacking))


def wait_for_host(out: Path, name: str, process: subprocess.Popen[str]) -> None:
    """Until a study has written down that a machine of this name trained a run."""
    while True:
        study = read_study(out / "study.json")
        launch = study.launch if isinstance(study, RunningStudy) else None
        if launch is not None and name in {host.name for host in launch.hosts}:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.2)
