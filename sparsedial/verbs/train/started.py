"""A checkpoint that is trained further: found by its files, with its shape, its tokenizer and its digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.records.evaluation import CheckpointName
from sparsedial.runs.linking import LINK
from sparsedial.shape.config import load_config
from sparsedial.shape.hugging_face.files import INDEX
from sparsedial.shape.shape import Shape
from sparsedial.text.tokenizer import Tokenizer, load_tokenizer

WEIGHTS = ("*.safetensors", INDEX, "*.bin")  # a folder that holds one of them is a checkpoint, if a damaged one
MOST_CONTEXT = 1024  # tokens of a window, unless it is asked for; few machines train on a whole published context
# The rate is a tenth to a hundredth of those that models of a few to a few hundred million parameters are pretrained
# with, and the routing bias moves as in DeepSeek-V3: released models have one that is balanced. Neither is tuned.
DEFAULTS = {"learning_rate": 1e-4, "balance_rate": 1e-3}


@dataclass(frozen=True, kw_only=True)
class FoundStart:
    """A checkpoint, read and checked but for its values."""

    shape: Shape
    name: CheckpointName

    def tokenizer(self, asked: str | None) -> Tokenizer:
        """The checkpoint's own tokenizer.

        Raises: UserError where it has none, or another one is asked for.
        """
        folder = Path(self.name.path)
        if asked is not None:
            raise UserError(
                f"'{asked}' is asked for, and {folder} has a tokenizer of its own, which its embedding was learned for",
                hint="leave <tokenizer> out",
                field="tokenizer",
            )
        return load_tokenizer(folder)

    def require_same(self, shape: Mapping[str, Any]) -> None:
        """Raises: UserError for a size of the shape that is not the checkpoint's."""
        for name, value in shape.items():
            own = getattr(self.shape, name)
            if value != own:
                raise UserError(
                    f"{value} contradicts {self.name.path}, whose {name} is {own}",
                    hint="a checkpoint is trained further in the shape that it has; its config.json gives a new model",
                    field=f"shape.{name}",
                )

    @property
    def recipe(self) -> dict[str, Any]:
        """The settings that a recipe has unless others are asked for."""
        return {**DEFAULTS, "context": min(MOST_CONTEXT, self.shape.context)}


def find_start(word: str, out: Path) -> FoundStart | None:
    """The checkpoint that a word names; None where it names no folder with weights.

    Raises: UserError for a checkpoint that is damaged or of another family, or that an output folder would change.
    """
    folder = Path(word)
    if not (folder / "config.json").is_file() or not any(found for ending in WEIGHTS for found in folder.glob(ending)):
        return None
    from sparsedial.model.digests import digest_of
    from sparsedial.model.reading import read_checkpoint
    from sparsedial.pruning.folder import require_outside

    require_outside(out, folder)
    if folder.absolute() == (out / LINK).absolute():
        raise UserError(
            f"{folder} is a link that this run would move to its own checkpoint",
            hint=f"name the folder itself, {folder.resolve()}, or another <out>",
        )
    shape, family = read_checkpoint(folder).shape, str(load_config(folder).get("model_type"))
    name = CheckpointName(path=str(folder.resolve()), digest=digest_of(folder), family=family)
    return FoundStart(shape=shape, name=name)
