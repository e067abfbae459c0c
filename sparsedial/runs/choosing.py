"""Which executor trains the runs of a study or a comparison."""

from __future__ import annotations

from sparsedial.runs.executor import Executor
from sparsedial.runs.local import Local
from sparsedial.runs.pool import Pool
from sparsedial.runs.run_store import RunStore
from sparsedial.text.prepare import Text


def executor_for(device: str, text: Text, store: RunStore, workers: int, pool: Pool | None = None) -> Executor:
    """On a GPU this process, which holds `workers` runs at once; on a CPU as many processes of one run each."""
    if device == "cuda":
        from sparsedial.runs.in_process import InProcess

        return InProcess(text=text, store=store, most=workers)
    return Local(text_folder=text.folder, runs_folder=store.folder, workers=workers, pool=pool)
