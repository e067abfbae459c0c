"""The trainers that a plan can be written for."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.planning.export.exported import Exported
from sparsedial.planning.export.hugging_face import hugging_face
from sparsedial.planning.export.megatron import megatron
from sparsedial.planning.export.torchtitan import torchtitan
from sparsedial.records.plan import PLAN_FILE, Export, Plan
from sparsedial.records.recipe import Recipe
from sparsedial.records.record import write
from sparsedial.shape.shape import Shape
from sparsedial.store import write_atomically
from sparsedial.version import __version__

EXPORTS: dict[str, Callable[[Shape, Recipe, int], Exported]] = {
    "transformers": lambda shape, recipe, _: hugging_face(shape, recipe),
    "torchtitan": torchtitan,
    "megatron": megatron,
}


def export_plan(plan: Plan, folder: Path) -> tuple[Export, ...]:
    """Write a plan for our own `train` and for other trainers; returns how to use each file and what it leaves out.

    Raises: UserError for a shape that a trainer's file cannot describe, before anything is written.
    """
    devices = plan.machine.devices if plan.machine else 1
    exports = [export(plan.shape, plan.recipe, devices) for export in EXPORTS.values()]
    for item in exports:
        if (folder / item.file).exists() and not (folder / PLAN_FILE).exists():
            raise UserError(f"{folder} holds a {item.file} that no plan wrote", hint="choose another <export>")
    write(folder / PLAN_FILE, plan)
    for item in exports:
        write_atomically(folder / item.file, item.text.encode())
    own = Export(
        trainer="sparsedial",
        file=str(folder / PLAN_FILE),
        command=shlex.join(["sparsedial", "train", str(folder), "--text", "TEXT"]),
        written_for=f"sparsedial {__version__}",
        not_expressed=(),
    )
    return own, *(item.record(folder) for item in exports)
