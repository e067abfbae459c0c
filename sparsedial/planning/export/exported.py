"""What an export is: one file for another trainer, and what that file leaves out."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.records.plan import Export
from sparsedial.records.recipe import Recipe
from sparsedial.shape.shape import Shape

# The only values that plans contain and exports write.
SHAPE_LIMITS = {
    "kv_lora_rank": (0,),
    "mtp_layers": (0,),
    "window": (0,),
    "rope_scaling": (None,),
    "attention_bias": (False,),
    "shared_gate": (False,),
    "rotated": (0,),
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

    def record(self, folder: Path) -> Export:
        """What a plan says of it, once it lies in a folder."""
        return Export(
            trainer=self.trainer,
            file=str(folder / self.file),
            command=self._command(str(folder.resolve())),
            written_for=self.written_for,
            not_expressed=self.not_expressed,
        )

    def _command(self, folder: str) -> str:
        """The command to copy; the folder is quoted for Python where it stands in quotes, else for the shell."""
        return self.command.replace("'FOLDER'", repr(folder)).replace("FOLDER", shlex.quote(folder))


def require_exportable(shape: Shape, recipe: Recipe, trainer: str) -> None:
    """Refuse a model or a training that the trainer's file cannot describe.

    Raises: UserError with the setting that cannot be described.
    """
    for values, limits in ((vars(shape), SHAPE_LIMITS), (vars(recipe), RECIPE_LIMITS)):
        for name, allowed in limits.items():
            if values[name] not in allowed:
                raise UserError(
                    f"export: {trainer}'s file has no {name}={values[name]}",
                    hint=f"it is written only for {name} {' or '.join(map(str, allowed))}",
                )
