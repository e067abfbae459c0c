"""The setting `log` of `train` and `study`: the programs that receive the training curves."""

from __future__ import annotations

from typing import Any

from sparsedial.errors import UserError, nearest
from sparsedial.settings import file_names
from sparsedial.showing.logs import LOGS

HELP = "also write the training curves for other programs: csv, tensorboard, wandb [metrics.jsonl of each run alone]"


def log_names(value: Any, field: str = "log") -> tuple[str, ...]:
    """Names of logs from `csv,wandb` or a list.

    Raises: UserError for an unknown name.
    """
    names = tuple(dict.fromkeys(file_names(value, field)))
    for name in names:
        if name not in LOGS:
            hint = nearest(name, LOGS) or f"there are {', '.join(LOGS)}"
            raise UserError(f"no log named '{name}'", hint=hint, field=field)
    return names
