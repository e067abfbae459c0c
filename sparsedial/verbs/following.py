"""The next command after a study: the same study with a larger budget."""

from __future__ import annotations

import platform
import shlex
from dataclasses import fields, replace

from sparsedial.records.best import BestModel
from sparsedial.verbs.study.settings import StudySettings
from sparsedial.version import __version__

DESIGN = (
    "sparsities", "top_k", "shared_experts", "tokenizer", "context", "batch", "cell_seeds", "form", "probes", "device",
    "token_share", "reference", "select", "keep", "optimizers", "seeds", "memory", "max_total_parameters", "on",
)  # fmt: skip
STEP = 10  # times the budget
DEFAULT_SECONDS = 600.0


def following(settings: StudySettings, best: BestModel | None) -> str:
    """The command for a budget ten times as large. It adds a sparser level where the sparsest one is the best."""
    words = ["sparsedial", "study", *settings.text]
    if settings.budgets:
        words += ["--budgets", ",".join(f"{STEP * budget:.3g}" for budget in settings.budgets)]
    else:
        words += ["--time", f"{round(STEP * (settings.time or DEFAULT_SECONDS) / 60)}m"]
    wanted, most = settings, max(settings.question().experts())
    if best is not None and best.sparsest_tried:
        wanted = replace(settings, sparsities=(*settings.sparsities, 1 - settings.top_k / (2 * most)))
    defaults = {field.name: field.default for field in fields(settings)}
    for name in DESIGN:
        value = getattr(wanted, name)
        if value != defaults[name]:
            words += [f"--{name.replace('_', '-')}", _spelled(value)]
    return shlex.join([*words, "--out", f"{settings.out}-next"])


def _spelled(value: object) -> str:
    """A value as a flag takes it."""
    if isinstance(value, tuple):
        return ",".join(map(_spelled, value))
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def versions() -> dict[str, str]:
    """Versions of the software that a study's numbers depend on."""
    import numpy
    import torch

    return {
        "sparsedial": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }
