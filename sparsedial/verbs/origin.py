"""Where a checkpoint came from: its run, and the law that its shape was chosen by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.law.literature import PUBLISHED
from sparsedial.store import read_json

SETTINGS = "settings.json"  # which `train` leaves beside its runs


def require_checkpoint(folder: Path) -> None:
    """Raises: UserError where a folder holds a checkpoint rather than being one."""
    inner = folder / "checkpoint"
    if not (folder / "config.json").exists() and (inner / "config.json").exists():
        raise UserError(f"{folder}: no checkpoint, but the folder of a run", hint=f"its checkpoint is {inner}")


def law_behind(checkpoint: Path) -> tuple[str, dict[str, str]]:
    """The law behind a checkpoint that `study` or `train` left, and where it stands on that law's dial.

    Gives what `plan --law` takes, and the run's budget and sparsity as the dial page's address bar writes them.

    Raises: UserError where no run, or no study and no plan, stands behind it.
    """
    folder = checkpoint.resolve().parent
    if not (folder / "run.json").exists():
        raise UserError(
            f"{checkpoint}: no run stands beside this checkpoint, so its law is unknown",
            hint=f"name a law: {', '.join(PUBLISHED)}, a law.json, or a study's folder",
        )
    run = read_json(folder / "run.json")
    state = {"flops": f"{run['flops']:.6g}", "position": str(run["sparsity"]["experts"])}
    for place in folder.parents:
        if (place / "law.json").exists():
            return str(place), state
        if (place / SETTINGS).exists():
            return _law_of(read_json(place / SETTINGS), checkpoint), state
    raise UserError(f"{checkpoint}: no study and no plan stands behind this checkpoint", hint=_NAME_ONE)


_NAME_ONE = "name a law, a law.json or a study's folder instead"


def _law_of(settings: dict[str, Any], checkpoint: Path) -> str:
    """The law of the plan that `train` followed: the study's beside the plan, or the published one that it names."""
    plan = settings.get("plan")
    if plan is None or not Path(plan).exists():
        gone = "was trained by no plan" if plan is None else f"was trained by {plan}, which is gone"
        raise UserError(f"{checkpoint}: {gone}, so its law is unknown", hint=_NAME_ONE)
    if (Path(plan).parent / "law.json").exists():
        return str(Path(plan).parent)
    return read_json(Path(plan))["law"]
