"""Scores on tasks of the original and of the smaller checkpoint, for `prune`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsedial.records.evaluation import TaskScore
from sparsedial.verbs.evaluate.scored_tasks import askable, loaded, score_tasks
from sparsedial.verbs.evaluate.settings import EvaluateSettings

if TYPE_CHECKING:
    from sparsedial.model.transformer import Transformer


@dataclass(frozen=True, eq=False)
class AskedTasks:
    """lm-eval's tasks by name, none where none was asked for, and how they are asked."""

    tasks: Mapping[str, Any]
    settings: EvaluateSettings

    @staticmethod
    def of(settings: EvaluateSettings) -> AskedTasks:
        """Those of some settings.

        Raises: UserError for a task that is unknown or whose items cannot be had.
        """
        return AskedTasks(loaded(settings), settings)

    def require(self, folder: Path, model: Transformer) -> None:
        """Raises: UserError for a task that does not fit a model."""
        if self.tasks:
            askable(folder, model, self.tasks, self.settings)

    def scores(self, folder: Path, model: Transformer) -> dict[str, TaskScore] | None:
        """A model's scores, by task; None where no task was asked for. Its answers are not kept."""
        if not self.tasks:
            return None
        with tempfile.TemporaryDirectory() as work:
            here = replace(self.settings, out=Path(work))
            found = score_tasks(folder, model, str(folder), "", self.tasks, {}, here)
        return {task: result.score for task, result in found.items()}
