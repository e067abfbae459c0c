"""lm-eval's tasks by name, and their items as texts that can be sought in other text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def loaded_tasks(names: Sequence[str], data: Path | None) -> dict[str, Any]:
    """lm-eval's tasks by name; none where none is asked for.

    Raises: UserError for a task that is unknown or whose items cannot be had, or where lm-eval is missing.
    """
    if not names:
        return {}
    os.environ.setdefault("TQDM_DISABLE", "1")  # lm-eval's and datasets' bars; read when tqdm is imported
    from sparsedial.evaluation.required import require_lm_eval

    require_lm_eval()
    from sparsedial.evaluation.tasks import load_tasks, named

    return load_tasks(named(names), data)


def item_texts(tasks: Mapping[str, Any], limit: int | None = None) -> dict[str, dict[int, str]]:
    """Each item as the model reads it with the right answer, by task and number."""
    from sparsedial.evaluation.item_text import item_text

    return {
        name: {number: item_text(task, doc) for number, doc in task.doc_iterator(limit=limit)}
        for name, task in tasks.items()
    }
