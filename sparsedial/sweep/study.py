"""The Study: what is frozen before the first cell, and the record that grows until the verdict."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.shape.ladder import Ladder
from sparsedial.store import in_use, read_json, write_json
from sparsedial.sweep.grid import Cell, Layout
from sparsedial.sweep.phases import Clock
from sparsedial.sweep.rates import RateModel, Scan
from sparsedial.units import spelled_seconds

FILE = "study.json"
BEAT_SECONDS = 5.0  # between two times that a running study writes what it has spent


def layout_record(layout: Layout) -> dict[str, Any]:
    """A layout as JSON."""
    return asdict(layout)


def layout_from(record: Mapping[str, Any]) -> Layout:
    """The inverse of `layout_record`."""
    values = dict(record)
    values["ladder"] = Ladder(**values["ladder"])
    values["cells"] = tuple(Cell(**cell) for cell in values["cells"])
    for name in ("budgets", "experts"):
        values[name] = tuple(values[name])
    return Layout(**values)


class StudyFile:
    """`study.json`: read once, then only added to."""

    def __init__(self, out: Path) -> None:
        self.path = out / FILE
        self.record: dict[str, Any] = {"status": "running", "frozen": None, "learning_rates": None}
        if self.path.exists():
            self.record = read_json(self.path)

    def keep(self, **parts: Any) -> None:
        """Add parts and write the file."""
        self.record.update(parts)
        write_json(self.path, self.record)

    def frozen_for(self, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        """What an earlier start of the same study fixed, or None.

        Raises: UserError where the folder holds a study of other inputs.
        """
        frozen = self.record["frozen"]
        if frozen is None:
            return None
        for name, value in inputs.items():
            if frozen["inputs"].get(name) != value:
                raise UserError(
                    f"{self.path.parent} holds a study {_other(name, frozen['inputs'].get(name), value)}",
                    hint="give the same settings to go on with it, or another --out",
                )
        return frozen

    @property
    def elapsed_seconds(self) -> float:
        """Seconds that earlier starts spent."""
        return float(self.record.get("elapsed_seconds") or 0.0)

    def rates(self) -> tuple[tuple[Scan, ...], RateModel] | None:
        """The scans and their model, where they are done."""
        kept = self.record["learning_rates"]
        if kept is None:
            return None
        scans = []
        for record in kept["scans"]:
            values = {name: record[name] for name in Scan.__dataclass_fields__}
            scans.append(Scan(**{**values, "points": tuple(tuple(point) for point in values["points"])}))
        return tuple(scans), RateModel.from_record(kept["model"])


def _other(name: str, held: Any, given: Any) -> str:
    """In the words of the command line, what differs between the study in a folder and the one asked for."""
    if name == "text":
        return "of another text"
    return f"with {_as_given(name, held)}, and this command has {_as_given(name, given)}"


def _as_given(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if value is None or value == []:
        return f"no {flag}"
    if name == "time":
        return f"{flag} {spelled_seconds(value)}"
    return f"{flag} " + ",".join(f"{v:.10g}" if isinstance(v, float) else str(v) for v in _listed(value))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class Diary:
    """Writes into `study.json`, as it goes, what a study has spent, in all and by phase, over all its starts.

    Nothing is written before the study is laid: a start that only measured binds no folder.
    """

    def __init__(self, file: StudyFile, clock: Clock) -> None:
        self.cells: Mapping[Cell, dict[str, Any]] = {}  # those that have ended
        self.clock = clock
        self._file = file
        self._phases = {row["name"]: dict(row) for row in file.record.get("phases") or []}
        self._phase, self._runs = "set-up", 0
        self._since = file.elapsed_seconds

    def enter(self, phase: str) -> None:
        """What is spent from now on is this phase's."""
        self.write()
        self._phase, self._runs = phase, 0

    def ran(self) -> None:
        """A run of this phase ended, or was found done."""
        self._runs += 1

    def beat(self) -> None:
        """Write, where the last time is long enough ago."""
        if self.clock.elapsed - self._since > BEAT_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what has been spent up to now.

        Raises: UserError where the folder cannot be written.
        """
        if self._file.record["frozen"] is None:
            return
        now = self.clock.elapsed
        before = self._phases.get(self._phase, {"seconds": 0.0})["seconds"]
        row = {"name": self._phase, "seconds": before + now - self._since, "runs": self._runs}
        self._phases[self._phase], self._since = row, now
        ended = {"cells": cells_summary(len(self._file.record["frozen"]["layout"]["cells"]), self.cells)}
        self._file.keep(
            elapsed_seconds=now,
            phase=self._phase,
            phases=list(self._phases.values()),
            **(ended if self.cells else {}),
        )


def cells_summary(planned: int, done: Mapping[Cell, dict[str, Any]]) -> dict[str, int]:
    """Cells that were laid, and those that ended, open sides among them."""
    ended = [record["status"] for record in done.values()]
    return {"planned": planned, "finished": ended.count("finished"), "diverged": ended.count("diverged")}


def status(out: Path) -> dict[str, Any]:
    """How far a study in a folder is, and whether it lives: a running one holds its folder's lock.

    Raises: UserError where the folder holds none.
    """
    file = out / FILE
    if not file.exists():
        raise UserError(f"{out} holds no study", hint="name its folder with --out")
    record = read_json(file)
    done, running = record["status"] == "done", in_use(out)
    ago = max(0.0, time.time() - file.stat().st_mtime)
    elapsed = record.get("elapsed_seconds")
    planned = len(record["frozen"]["layout"]["cells"]) if record["frozen"] else 0
    cells = record.get("cells") or cells_summary(planned, {})
    finished = 0
    for path in out.glob("runs/*/run.json"):
        with contextlib.suppress(UserError):
            finished += read_json(path)["status"] == "finished"
    return {
        "out": str(out),
        "status": "done" if done else "running" if running else "stopped",
        "written_seconds_ago": ago,
        "phase": None if done else record.get("phase"),
        "phases": record.get("phases") or [],
        "cells_planned": planned,
        "cells_finished": cells["finished"],
        "cells_diverged": cells["diverged"],
        "runs_finished": finished,
        "elapsed_seconds": elapsed + ago if elapsed and running and not done else elapsed,
        "report": record.get("report"),
    }
