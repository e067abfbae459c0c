"""Sparsedial finds the sparsity that is best for your budget, trains the model, and gives you the dial.

Every verb of the command line is a function here (`sparsedial.study(...)`, `sparsedial.count(...)`), and
`sparsedial.load(folder)` reads a checkpoint. Everything is imported on first use.
"""

from __future__ import annotations

import os
from typing import Any

from sparsedial.version import __version__ as __version__


def load(folder: str | os.PathLike[str]) -> Any:
    """Load the model of a checkpoint folder; calling it on token ids gives logits.

    Shapes: ids [B, S] to logits [B, S, V]
    Raises: UserError where tensors are missing, unexpected, wrongly shaped or damaged.
    """
    from pathlib import Path

    from sparsedial.errors import UserError
    from sparsedial.model.checkpoint import load as load_checkpoint

    if not isinstance(folder, str | os.PathLike):
        raise UserError(f"load: {folder!r} is not a folder's name", hint="name the folder of a checkpoint")
    return load_checkpoint(Path(folder))


def __getattr__(name: str) -> Any:
    from sparsedial.verbs import VERBS, python_function

    if name in VERBS:
        return python_function(VERBS[name])
    raise AttributeError(f"module 'sparsedial' has no attribute '{name}'")
