"""The setting of a checkpoint's dial that a command asks for: by its name, or by a budget that `dial.json` resolves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparsedial.errors import UserError, about
from sparsedial.machine.hardware import describe
from sparsedial.model.digests import sha256_of
from sparsedial.records.answers import WeightsDtype
from sparsedial.records.dial_file import DIAL_FILE, GATES_FILE, DialFile
from sparsedial.records.setting import Setting
from sparsedial.serving.settings import read_dial, resolve, usual_settings
from sparsedial.shape.shape import Shape
from sparsedial.shape.turned import ALL, Turned, distinct, parse_turned
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
    return resolve(shape, setting, budgets, lambda kind: _dial_of(folder, kind in PACE))


def _dial_of(folder: Path, pace: bool) -> DialFile:
    """A checkpoint's `dial.json`; `pace`: whether what it says of the machine matters."""
    dial = read_dial(folder)
    if pace:
        note_machine(folder, dial)
    return dial


def note_machine(folder: Path, dial: DialFile) -> None:
    """Say where the speeds of a dial were measured on another machine."""
    here = describe()
    if (dial.machine.processor, dial.machine.cores) != (here.processor, here.cores):
        where = f"{dial.machine.processor}, {dial.machine.cores} cores"
        note(f"note: {folder / DIAL_FILE} was measured on another machine ({where})")


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


def note_dtype(folder: Path, dtype: WeightsDtype) -> None:
    """Say where the speeds of a dial were measured with weights in another type."""
    if dtype != DIAL_DTYPE:
        note(f"note: {folder / DIAL_FILE} was measured with weights in {DIAL_DTYPE}, here in {dtype}")


def told_by(folder: Path, digest: str, setting: Setting) -> str:
    """What tells the answers of a checkpoint at a setting from others.

    The gates of a share of the neurons lie beside a checkpoint, and are no part of its digest.
    """
    gates = [] if setting.neurons_share is None else [sha256_of(folder / GATES_FILE)]
    return " ".join([digest, setting.name, *gates])
