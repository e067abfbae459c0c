"""The Study: what is frozen before the first cell, and the record that grows until the verdict."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.shape.ladder import Ladder
from sparsedial.store import read_json, write_json
from sparsedial.sweep.grid import Cell, Layout
from sparsedial.sweep.rates import RateModel, Scan

FILE = "study.json"


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
                    f"{self.path.parent} holds a study with {name}={frozen['inputs'].get(name)}, not {value}",
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


def status(out: Path) -> dict[str, Any]:
    """How far a study in a folder is.

    Raises: UserError where the folder holds none.
    """
    file = out / FILE
    if not file.exists():
        raise UserError(f"{out} holds no study", hint="name its folder with --out")
    record = read_json(file)
    planned = len(record["frozen"]["layout"]["cells"]) if record["frozen"] else 0
    finished = 0
    for path in out.glob("runs/*/run.json"):
        with contextlib.suppress(UserError):
            finished += read_json(path)["status"] == "finished"
    return {
        "out": str(out),
        "status": record["status"],
        "cells_planned": planned,
        "runs_finished": finished,
        "elapsed_seconds": record.get("elapsed_seconds"),
        "report": record.get("report"),
    }
