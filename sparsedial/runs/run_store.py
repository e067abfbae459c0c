"""The folder of runs: one sub-folder per run, named by the hash of the run's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.model.digests import verify
from sparsedial.records.record import read, read_lines, try_read, write, write_lines
from sparsedial.records.run import METRICS_FILE, RUN_FILE, Metric, Run
from sparsedial.store import Fault


class RunStore:
    """Runs that ended, saved states of unfinished runs, and trunks that branches continue from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, run_hash: str) -> Path:
        """The run's folder, with `run.json`, `metrics.jsonl` and other files of the training."""
        return self.folder / run_hash[:16]

    def unfinished(self, run_hash: str) -> Path:
        """The folder of a run's state until the run ends."""
        return self.path(run_hash) / "unfinished"

    def trunk(self, trunk_hash: str) -> Path:
        """The folder of the state that runs of several lengths continue from."""
        return self.folder / "trunks" / trunk_hash[:16]

    def checkpoint(self, run_hash: str) -> Path:
        """The folder of a run's checkpoint, if it was kept."""
        return self.path(run_hash) / "checkpoint"

    def has_checkpoint(self, run_hash: str) -> bool:
        """Whether a run's checkpoint was kept and is whole."""
        folder = self.checkpoint(run_hash)
        try:
            verify(folder)
        except UserError:
            return False
        return (folder / "config.json").exists()

    def find(self, run_hash: str) -> Run | None:
        """The run that ended with this hash; None where it is missing or damaged, so that it is done again."""
        path = self.path(run_hash) / RUN_FILE
        if not path.exists():
            return None
        found = try_read(path, Run)
        return None if isinstance(found, Fault) or found.hash != run_hash else found

    def read(self, run_hash: str) -> Run:
        """A run that was just written.

        Raises: UserError where it is missing or damaged.
        """
        return read(self.path(run_hash) / RUN_FILE, Run)

    def write(self, run: Run) -> None:
        """Write the record of a run that ended."""
        write(self.path(run.hash) / RUN_FILE, run)

    def write_metrics(self, run_hash: str, lines: Sequence[Metric]) -> None:
        """Write the metrics of some steps of a run."""
        write_lines(self.path(run_hash) / METRICS_FILE, lines)

    def metrics(self, run_hash: str) -> list[Metric]:
        """The stored metrics of a run, in order.

        Raises: UserError where they are missing or damaged.
        """
        return read_lines(self.path(run_hash) / METRICS_FILE, Metric)
