"""The link `checkpoint` in the folder of `train`, to the newest run's; a copy of the folder may hold a folder there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.model.digests import SUMMARY, verify

LINK = "checkpoint"


def require_link(out: Path) -> Path | None:
    """The checkpoint that the link is to, None where there is no link yet.

    Raises: UserError where something is there that is neither a link nor a copy of a run's checkpoint.
    """
    link = out / LINK
    if link.is_symlink():
        return out / link.readlink()
    if not link.exists() or _is_copy(link, out):
        return None
    raise UserError(
        f"{link} is not a link to a run's checkpoint, as it should be, nor a copy of one",
        hint="move it away, or choose another <out>",
    )


def linked(checkpoint: Path, out: Path) -> str | None:
    """Link `out/checkpoint` to a checkpoint, in one step; None where the run diverged and has none."""
    if not checkpoint.exists():
        return None
    link, new = out / LINK, out / f".{LINK}.{os.getpid()}"
    if link.is_dir() and not link.is_symlink():
        require_link(out)
        shutil.rmtree(link)
    new.unlink(missing_ok=True)
    new.symlink_to(checkpoint.relative_to(out))
    os.replace(new, link)
    return str(link)


def left_by(before: Path | None, out: Path) -> str | None:
    """A sentence where the link has left an earlier run's checkpoint for another's."""
    if before is None or before == require_link(out):
        return None
    return f"{out / LINK} is now this run's; the earlier run's is {before}"


def _is_copy(folder: Path, out: Path) -> bool:
    """Whether a folder is a copy of a run's checkpoint: whole, with the same files of the same digests."""
    try:
        verify(folder)
        summary, names = (folder / SUMMARY).read_bytes(), _names(folder)
    except (OSError, UserError):
        return False
    runs = (path.parent for path in out.glob(f"runs/*/checkpoint/{SUMMARY}") if path.read_bytes() == summary)
    return any(_names(run) == names for run in runs)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
