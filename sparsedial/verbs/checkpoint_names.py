"""What names a checkpoint in an answer, and whether it is still the one that was read."""

from __future__ import annotations

from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.model.digests import digest_of
from sparsedial.records.evaluation import CheckpointName
from sparsedial.shape.config import load_config


def name_of(folder: Path, shown: Path | None = None) -> CheckpointName:
    """The path, digest and family of a checkpoint; `shown` is the path that it will have, if that is another.

    Raises: UserError for a folder without a configuration.
    """
    family = str(load_config(folder).get("model_type"))
    return CheckpointName(path=str(shown or folder), digest=digest_of(folder), family=family)


def unchanged(name: CheckpointName) -> CheckpointName:
    """The same name. Tensors are read when they are needed: of a checkpoint that changes meanwhile they would be mixed.

    Raises: UserError where the checkpoint is another one now.
    """
    if digest_of(Path(name.path)) != name.digest:
        raise UserError(
            f"{name.path} was changed while it was read, so nothing is written",
            hint="run the same command again when nothing writes there",
        )
    return name
