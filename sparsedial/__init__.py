"""Sparsedial finds the sparsity that is best for your budget, trains the model, and gives you the dial.

Every verb of the command line is a function here (`sparsedial.study(...)`, `sparsedial.count(...)`), and
`sparsedial.load(folder)` reads a checkpoint. Everything is imported on first use.
"""

from __future__ import annotations

import os
from typing import Any

from sparsedial.version import __version__ as __version__

# Threads of OpenMP spin while they wait. Where anything else uses a core, one of them is not running, and the others
# spin for a whole time slice of the system: training on two threads of two cores then takes several times as long
# (`benchmarks/waiting.py` measures it). The runtime reads this when PyTorch is imported; our processes inherit it.
WAITS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
if not any(name in os.environ for name in WAITS):
    os.environ["OMP_WAIT_POLICY"] = "passive"


def load(folder: str | os.PathLike[str], setting: str | None = None) -> Any:
    """Load the model of a checkpoint folder, at a setting of its dial like `k=2`; on token ids it gives logits.

    Shapes: ids [B, S] to logits [B, S, V]
    Raises: UserError where tensors are missing, unexpected, wrongly shaped or damaged, for a setting that the
        checkpoint cannot have, or whose gates are not measured.
    """
    from pathlib import Path

    from sparsedial.errors import UserError, about
    from sparsedial.model.checkpoint import load as load_checkpoint
    from sparsedial.model.gates import gates_of
    from sparsedial.model.turned import at_setting
    from sparsedial.shape.turned import DEFAULT, parse_turned

    if not isinstance(folder, str | os.PathLike):
        raise UserError(f"load: {folder!r} is not a folder's name", hint="name the folder of a checkpoint")
    turned = parse_turned(DEFAULT if setting is None else setting)
    model = load_checkpoint(Path(folder))
    with about("setting"):
        return at_setting(model, turned, gates_of(Path(folder), model.shape, [turned]))


def lm_eval_model(folder: str | os.PathLike[str], setting: str | None = None) -> Any:
    """The model of a checkpoint folder for lm-eval: `lm_eval.simple_evaluate(lm_eval_model(folder), tasks=[...])`.

    It may be at a setting of its dial, like `k=2`.

    Raises: UserError for a damaged checkpoint, a setting that it cannot have, or where lm-eval is missing.
    """
    from pathlib import Path

    from sparsedial.evaluation.required import require_lm_eval

    require_lm_eval()
    from sparsedial.evaluation.harness import HarnessModel

    return HarnessModel.around(Path(folder), load(folder, setting))


def __getattr__(name: str) -> Any:
    from sparsedial.verbs import VERBS

    if name in VERBS:
        from sparsedial.verbs.python import python_function

        return python_function(VERBS[name])
    raise AttributeError(f"module 'sparsedial' has no attribute '{name}'")


def __dir__() -> list[str]:
    from sparsedial.verbs import VERBS

    return sorted([*VERBS, "load", "lm_eval_model", "__version__", "__doc__"])
