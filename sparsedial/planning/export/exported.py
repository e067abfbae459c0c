"""What an export is: one file for another trainer, and what that file does not say."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.shape.shape import Shape

# What no plan asks for, and no export writes.
SHAPE_LIMITS = {
    "kv_lora_rank": (0,),
    "mtp_layers": (0,),
    "window": (0,),
    "rope_scaling": (None,),
    "attention_bias": (False,),
    "qk_norm": ("head", "none"),
    "expert_groups": (1,),
    "top_p": (1.0,),
    "logit_cap": (0.0,),
}
RECIPE_LIMITS = {"optimizer": ("adamw",), "width_base": (0,), "spike_sigmas": (0.0,)}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A plan as one trainer reads it."""

    trainer: str
    file: str  # its name in the folder of the export
    text: str
    command: str  # that uses it; FOLDER stands for the folder of the export
    written_for: str  # the version whose names it uses
    not_expressed: tuple[str, ...]

    def record(self, folder: Path) -> dict[str, Any]:
        """What a plan says of it, once it lies in a folder."""
        return {
            "trainer": self.trainer,
            "file": str(folder / self.file),
            "command": self._command(str(folder.resolve())),
            "written_for": self.written_for,
            "not_expressed": list(self.not_expressed),
        }

    def _command(self, folder: str) -> str:
        """The command to copy: in Python's quotes where it stands in them, else in the shell's where it needs any."""
        return self.command.replace("'FOLDER'", repr(folder)).replace("FOLDER", shlex.quote(folder))


def require_exportable(shape: Shape, recipe: Mapping[str, Any], trainer: str) -> None:
    """Refuse a model or a training that the trainer's file would not describe.

    Raises: UserError with the setting that stands in the way.
    """
    for values, limits in ((vars(shape), SHAPE_LIMITS), (recipe, RECIPE_LIMITS)):
        for name, allowed in limits.items():
            if values[name] not in allowed:
                raise UserError(
                    f"export: {trainer}'s file has no {name}={values[name]}",
                    hint=f"it is written for {name} {' or '.join(map(str, allowed))} alone",
                )
