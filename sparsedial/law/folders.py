"""The finished runs of a study, or of a folder of runs, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.law.grid_runs import grid_runs, study_beside
from sparsedial.records.record import read
from sparsedial.records.run import Run
from sparsedial.records.study import read_finished

RUN_FILES = ("runs/*/run.json", "*/run.json")  # in the folder of `train`, or in that of its runs
RUN_FIELDS = ("hash", "trunk", "tokens", "flops", "total_parameters", "active_parameters", "seconds")
UNFINISHED = "the same `study` command continues a study"
CELL_FIELDS = ("loss", "total_parameters", "active_parameters", "tokens", "sparsity", "d_model", "seconds")
Row = dict[str, float | str | None]


def study_rows(path: Path) -> Sequence[Row]:
    """The finished cells of a study."""
    cells = [row for row in read_finished(path).cells_table if row.status == "finished"]
    return [
        {
            **{name: getattr(row, name) for name in CELL_FIELDS},
            "flops": row.budget_flops,
            "experts": _experts(row.sparsity),
        }
        for row in cells
    ]


def run_rows(folder: Path) -> Sequence[Row]:
    """The finished runs of a folder; their loss is that on the validation split, as in a study.

    Of a study's runs only those of its grid.

    Raises: UserError where there are none, for a damaged or foreign record, or runs on several texts.
    """
    files = _files(folder)
    if not files:
        raise UserError(f"{folder}: holds no study and no runs", hint="`study` and `train` write such folders")
    runs, study = [run for run in (read(file, Run) for file in files) if run.finished], study_beside(folder)
    if study is not None:
        runs = grid_runs(study, runs).cells
        if not runs:
            raise UserError(f"{folder}: none of its runs is a finished cell of the study's grid", hint=UNFINISHED)
    texts = {run.text_digest for run in runs}
    if len(texts) > 1:
        raise UserError(
            f"{folder}: its runs learned from {len(texts)} texts, whose losses cannot be compared",
            hint="keep the runs on each text in a folder of their own",
        )
    return [
        {
            **{name: getattr(run, name) for name in RUN_FIELDS},
            "loss": run.validation_loss,
            "sparsity": run.sparsity.experts,
            "experts": _experts(run.sparsity.experts),
        }
        for run in runs
    ]


def left_out_note(folder: Path) -> str | None:
    """A word on runs of a study that `run_rows` leaves out, by what they were for."""
    study = study_beside(folder)
    return None if study is None else grid_runs(study, [read(file, Run) for file in _files(folder)]).note


def _files(folder: Path) -> list[Path]:
    return sorted(file for pattern in RUN_FILES for file in folder.glob(pattern))


def _experts(sparsity: float) -> float:
    """Experts as laws count them: experts/top_k."""
    return 1 / (1 - sparsity)
