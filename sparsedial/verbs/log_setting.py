"""The setting `log` of `train` and `study`: the programs that receive the training curves."""

from __future__ import annotations

from typing import Any

from sparsedial.settings import known_names
from sparsedial.showing.logs import LOGS

HELP = "also write the training curves for other programs: csv, tensorboard, wandb [metrics.jsonl of each run alone]"


def log_names(value: Any, field: str = "log") -> tuple[str, ...]:
    """Names of logs from `csv,wandb` or a list.

    Raises: UserError for an unknown name.
    """
    return known_names(value, LOGS, "log", field)
