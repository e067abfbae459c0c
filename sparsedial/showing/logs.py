"""Training curves for other programs while runs are going: a CSV file, TensorBoard or Weights & Biases."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from sparsedial.errors import UserError

COLUMNS = ("run", "step", "tokens", "loss", "tokens_per_second", "validation_loss", "test_loss")


class Log(Protocol):
    """Takes the numbers of runs; a run is named by its label."""

    def write(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of one step."""
        ...

    def close(self) -> None:
        """Write what is still held back."""
        ...


class CsvLog:
    """`log.csv` in the folder of the command: a row for each step that was shown, and one for each run's end."""

    def __init__(self, folder: Path) -> None:
        path = folder / "log.csv"
        is_new = not path.exists() or not path.stat().st_size
        self._file = path.open("a", newline="", encoding="utf-8", buffering=1)
        self._rows: csv.DictWriter[str] = csv.DictWriter(self._file, COLUMNS, restval="")
        if is_new:
            self._rows.writeheader()

    def write(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Add a row; numbers that it lacks stay empty."""
        self._rows.writerow({"run": run, "step": step, **{name: f"{value:.6g}" for name, value in values.items()}})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardLog:
    """Event files under `tensorboard/` in the folder of the command, one folder for each run."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._open: Callable[[str], Any] = SummaryWriter
        self._folder = folder / "tensorboard"
        self._writers: dict[str, Any] = {}

    def write(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Add one point to the curve of each number."""
        if run not in self._writers:
            self._writers[run] = self._open(str(self._folder / file_name(run)))
        for name, value in values.items():
            self._writers[run].add_scalar(name, value, step)

    def close(self) -> None:
        """Write all event files to their end."""
        for writer in self._writers.values():
            writer.close()


class WandbLog:
    """Runs of the project `sparsedial`; the environment variables of wandb choose the account and offline use."""

    def __init__(self, folder: Path) -> None:
        import wandb  # pyright: ignore  # an extra

        self._wandb: Any = wandb
        self._folder = folder
        self._runs: dict[str, Any] = {}

    def write(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of one step."""
        if run not in self._runs:
            self._runs[run] = self._wandb.init(
                project="sparsedial", name=run, dir=str(self._folder), reinit="create_new"
            )
        self._runs[run].log(dict(values), step=step)

    def close(self) -> None:
        """End all runs."""
        for run in self._runs.values():
            run.finish()


def file_name(run: str) -> str:
    """A label as the name of a folder: `dense, width 48, 2e+11 FLOPs` is `dense_width_48_2e+11_FLOPs`."""
    return re.sub(r"[^\w.+-]+", "_", run).strip("_")


def open_log(name: str, folder: Path) -> Log:
    """A log by name, in the folder of the command.

    Raises: UserError where its library is not installed, or the folder cannot be written.
    """
    try:
        return LOGS[name](folder)
    except ImportError as error:
        raise UserError(f"{name} is not installed", hint=f"pip install 'sparsedial[{name}]'", field="log") from error
    except OSError as error:
        raise UserError(f"cannot write a log in {folder}: {error.strerror}", field="log") from error


LOGS: Mapping[str, Callable[[Path], Log]] = {"csv": CsvLog, "tensorboard": TensorBoardLog, "wandb": WandbLog}
