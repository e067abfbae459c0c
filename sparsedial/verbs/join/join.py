"""`join`: train runs of a study that runs on another machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.machine.hardware import usable_cores
from sparsedial.records.launch import JoinAnswer
from sparsedial.settings import setting
from sparsedial.showing.notes import note
from sparsedial.units import parse_seconds


@dataclass(frozen=True, kw_only=True)
class JoinSettings:
    """The study, and what this machine gives it."""

    study: Path = setting(
        help="the folder of a study that was started with --on, by a path on this machine",
        positional=True,
        example="like `sparsedial join runs/mine`",
    )
    workers: int | None = setting(
        None, "runs at once, each a process of one thread", "N", shown="one per core, the maximum"
    )
    wait: float | None = setting(
        None, "time to wait for the study to begin, like 10m", "T", parse=parse_seconds, shown="it must run already"
    )
    name: str | None = setting(None, "this machine's name in the study's record", shown="its host name")

    def __post_init__(self) -> None:
        cores = usable_cores()
        if self.workers is not None and not 1 <= self.workers <= cores:
            raise UserError(
                f"{self.workers} lies outside 1..{cores}", hint="a run has a core of its own", field="workers"
            )
        if self.name is not None and not self.name.strip():
            raise UserError("an empty name says nothing", hint="leave it out", field="name")


def join(settings: JoinSettings) -> JoinAnswer:
    """Train runs of a running study on this machine, until the study ends or Ctrl-C.

    The study's folder must be seen from both machines, and both need the same versions. What is not finished when this
    machine leaves is trained by another one.

    Raises: UserError where the folder is not here, no study is running in it that lets others in, or it cannot be
        reached, or lets these workers not in.
    """
    from sparsedial.runs.machines.crew import send_workers
    from sparsedial.runs.machines.setup import host_name

    began, host = time.monotonic(), settings.name or host_name()
    workers = settings.workers or usable_cores()
    runs = send_workers(settings.study, host, workers, settings.wait or 0.0, note)
    return JoinAnswer(
        study=str(settings.study), host=host, workers=workers, runs=runs, seconds=time.monotonic() - began
    )
