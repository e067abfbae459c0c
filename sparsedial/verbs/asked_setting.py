"""The setting of a checkpoint's dial that a command asks for: by its name, or by a budget that `dial.json` resolves."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from sparsedial.errors import UserError, about
from sparsedial.machine.hardware import describe
from sparsedial.model.digests import sha256_of
from sparsedial.records.dial_file import DIAL_FILE, GATES_FILE, DialFile
from sparsedial.records.record import read
from sparsedial.records.setting import Setting
from sparsedial.records.trained_for import trained_for
from sparsedial.serving.budget import choose
from sparsedial.shape.config import load_config
from sparsedial.shape.shape import Shape
from sparsedial.shape.turned import ALL, DEFAULT, Turned, distinct, parse_turned, series
from sparsedial.showing.notes import note

PACE = ("at_least", "at_most")  # budgets that depend on the machine
DIAL_DTYPE = "float32"  # in which `dial --measure` holds weights


def require_one(**given: object) -> None:
    """Raises: UserError where more than one of these settings is given."""
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise UserError(f"goes without <{named[0]}>: both choose the setting of the dial", field=named[1])


def asked_setting(folder: Path, shape: Shape, setting: str | None, **budgets: float | None) -> tuple[Turned, str]:
    """The setting that is asked for, and why it is the one.

    Raises: UserError for one that the checkpoint cannot have, a budget that no setting keeps, or a `dial.json` that is
    missing or of another checkpoint.
    """
    for kind, limit in budgets.items():
        if limit is not None:
            point, reason = choose(_dial_of(folder, kind in PACE), kind, limit)
            return parse_turned(point.setting.name), reason
    with about("setting"):
        turned = parse_turned(setting or DEFAULT)
        turned.shape(shape)
    return turned, DEFAULT if setting is None else "asked"


def _dial_of(folder: Path, pace: bool) -> DialFile:
    """A checkpoint's `dial.json`; `pace`: whether what it says of the machine matters."""
    dial = read_dial(folder)
    here = describe()
    if pace and (dial.machine.processor, dial.machine.cores) != (here.processor, here.cores):
        where = f"{dial.machine.processor}, {dial.machine.cores} cores"
        note(f"note: {folder / DIAL_FILE} was measured on another machine ({where})")
    return dial


def read_dial(folder: Path) -> DialFile:
    """The measured settings of a checkpoint.

    Raises: UserError where they are missing, damaged, of another checkpoint, or measured with other gates.
    """
    from sparsedial.model.digests import digest_of, sha256_of

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


def asked_settings(folder: Path, shape: Shape, texts: Sequence[str]) -> tuple[Turned, ...]:
    """The settings that are named, or for `all` those of `dial.json`, else from the default down.

    Raises: UserError for one that the checkpoint cannot have, or a `dial.json` that is of another checkpoint.
    """
    if tuple(texts) != ALL:
        with about("settings"):
            return distinct([parse_turned(text, "settings") for text in texts], shape)
    if (folder / DIAL_FILE).exists():
        return tuple(parse_turned(point.setting.name) for point in read_dial(folder).settings)
    return usual_settings(folder, shape)


def usual_settings(folder: Path, shape: Shape) -> tuple[Turned, ...]:
    """As many experts as in training, half and so on to one, and those that the checkpoint was trained for."""
    known = trained_for(load_config(folder))
    return series(shape, known.top_k_experts if known else ())


def told_by(folder: Path, digest: str, setting: Setting) -> str:
    """What tells the answers of a checkpoint at a setting from others.

    The gates of a share of the neurons lie beside a checkpoint, and are no part of its digest.
    """
    gates = [] if setting.neurons_share is None else [sha256_of(folder / GATES_FILE)]
    return " ".join([digest, setting.name, *gates])
