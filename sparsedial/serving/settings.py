"""The settings of a checkpoint's dial: those that were measured, the usual ones, and the one that somebody asks for."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from sparsedial.errors import UserError, about
from sparsedial.model.digests import digest_of, sha256_of
from sparsedial.records.dial_file import DIAL_FILE, GATES_FILE, DialFile
from sparsedial.records.record import read
from sparsedial.records.trained_for import trained_for
from sparsedial.serving.budget import choose
from sparsedial.shape.config import load_config
from sparsedial.shape.shape import Shape
from sparsedial.shape.turned import DEFAULT, Turned, parse_turned, series


def resolve(
    shape: Shape, setting: str | None, budgets: Mapping[str, float | None], dial_of: Callable[[str], DialFile]
) -> tuple[Turned, str]:
    """The setting of a name, or of a budget by `dial_of` its kind; else the default. And why it is the one.

    Raises: UserError for one that a checkpoint of this Shape cannot have, or a budget that no setting keeps.
    """
    for kind, limit in budgets.items():
        if limit is not None:
            point, reason = choose(dial_of(kind), kind, limit)
            return parse_turned(point.setting.name), reason
    with about("setting"):
        turned = parse_turned(DEFAULT if setting is None else setting)
        turned.shape(shape)
    return turned, DEFAULT if setting is None else "asked"


def read_dial(folder: Path) -> DialFile:
    """The measured settings of a checkpoint.

    Raises: UserError where they are missing, damaged, of another checkpoint, or measured with other gates.
    """
    file, again = folder / DIAL_FILE, f"`sparsedial dial {shlex.quote(str(folder))} --measure --text TEXT` makes it"
    if not file.exists():
        raise UserError(f"{file}: no such file, so the settings of this checkpoint are not measured", hint=again)
    dial = read(file, DialFile)
    if dial.checkpoint_digest != digest_of(folder):
        raise UserError(f"{file} is of another checkpoint, or of this one before it was changed", hint=again)
    gates = folder / GATES_FILE
    if dial.gates_sha256 is not None and gates.exists() and dial.gates_sha256 != sha256_of(gates):
        raise UserError(f"{file} was measured with other gates than those in {gates.name} beside it", hint=again)
    return dial


def usual_settings(folder: Path, shape: Shape) -> tuple[Turned, ...]:
    """As many experts as in training, half and so on to one, and those that the checkpoint was trained for."""
    known = trained_for(load_config(folder))
    return series(shape, known.top_k_experts if known else ())
