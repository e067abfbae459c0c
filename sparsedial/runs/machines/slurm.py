"""Workers on the other nodes of a Slurm allocation, started with one `srun`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.runs.machines.launched import Launched
from sparsedial.units import count_words

LOG = "workers.log"  # in the study's folder: what srun and its workers say
LEAVE_SECONDS = 30.0  # for workers to save their runs' states after the study has ended


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """The nodes of a job, as Slurm's environment names them."""

    job: str
    nodes: int
    own: str | None  # the node of this process; None where it is outside of them, as in `salloc` on a login node
    cores: int  # that every node has for the job

    @property
    def others(self) -> int:
        """Nodes on which this machine's own workers are not."""
        return self.nodes - (self.own is not None)


def allocation(environment: Mapping[str, str]) -> Allocation:
    """The allocation that this process runs in.

    Raises: UserError where there is none, or no `srun`.
    """
    job = environment.get("SLURM_JOB_ID")
    if job is None or "SLURM_JOB_CPUS_PER_NODE" not in environment:
        raise UserError(
            "there is no Slurm allocation here",
            hint="write the command into a script for `sbatch --nodes 4 --exclusive`, or type it after `salloc`",
            field="on",
        )
    if shutil.which("srun", path=environment.get("PATH")) is None:
        raise UserError("srun is not on the PATH", hint="load Slurm's module, or join by hand: <on> join", field="on")
    counts = re.sub(r"\(x\d+\)", "", environment["SLURM_JOB_CPUS_PER_NODE"])  # like 16(x3),8
    return Allocation(
        job=job,
        nodes=int(environment.get("SLURM_JOB_NUM_NODES", "1")),
        own=environment.get("SLURMD_NODENAME"),
        cores=min(map(int, counts.split(","))),
    )


def command(found: Allocation, folder: Path, workers: int) -> list[str]:
    """What starts so many workers on each of the other nodes. One that ends, or its node, ends none of the others."""
    nodes = found.others
    return [
        "srun",
        f"--nodes={nodes}",
        f"--ntasks={nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={workers}",
        *([f"--exclude={found.own}"] if found.own else []),
        "--kill-on-bad-exit=0",
        "--wait=0",
        "--no-kill",
        "--label",
        *(sys.executable, "-m", "sparsedial.cli.main", "join", str(folder), "--workers", str(workers)),
    ]


def on_slurm(folder: Path, workers: int | None, say: Callable[[str], None]) -> Launched:
    """Start workers on the other nodes: as many on each as it has cores for the job, or as were asked.

    Raises: UserError where this is no allocation of Slurm's.
    """
    found = allocation(os.environ)
    each = min(found.cores, workers or found.cores)
    if not found.others:
        say(f"job {found.job} has one node: its runs train on this one")
        return Launched(expected=0)
    nodes = count_words(found.others, "more node")
    say(f"srun starts {count_words(each, 'worker')} on each of {nodes} of job {found.job}")
    with open(folder / LOG, "ab") as log:
        process = subprocess.Popen(
            command(found, folder.resolve(), each),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is this process's: it ends the workers
        )

    def watch() -> None:
        status = process.wait()
        say(f"srun has ended with status {status}: {folder / LOG} says more")

    threading.Thread(target=watch, daemon=True).start()
    return Launched(expected=each * found.others, end=partial(_end, process))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait until the workers have noticed that the study has ended."""
    try:
        process.wait(LEAVE_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
