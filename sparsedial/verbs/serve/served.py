"""What `serve` knows of a checkpoint before it loads it: its memory, its dial, and how it names itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sparsedial.errors import UserError
from sparsedial.machine.hardware import machine_bytes
from sparsedial.model.checkpoint import held_dtype
from sparsedial.model.gates import Gates, gates_of
from sparsedial.model.reading import Checkpoint, read_checkpoint
from sparsedial.records.answers import WeightsDtype
from sparsedial.records.dial_file import DIAL_FILE, GATES_FILE, DialFile
from sparsedial.records.serving import ServeDryRun
from sparsedial.serving.dial import Dial, chosen_at, require_measured
from sparsedial.serving.scheduler import MOST_LANES
from sparsedial.serving.settings import read_dial, resolve, usual_settings
from sparsedial.shape.counts import cached_values_per_token, total_parameters
from sparsedial.shape.shape import Shape
from sparsedial.shape.turned import Turned
from sparsedial.showing.notes import note
from sparsedial.units import human_bytes
from sparsedial.verbs.asked_setting import note_dtype, note_machine
from sparsedial.verbs.serve.settings import ServeSettings

USUAL_CONTEXT = 4096
VALUE_BYTES = {"float32": 4, "bfloat16": 2}
CACHED_BYTES = 4  # of a value in the cache, which is in float32
HALF = Turned(neurons=0.5)  # one of the settings that need gates
CHECKPOINT = "checkpoint"  # the name of a folder that says nothing


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A checkpoint that is not loaded yet, and what a server of it holds."""

    checkpoint: Checkpoint
    dial: Dial
    dtype: str
    record: ServeDryRun


def counted(settings: ServeSettings) -> Counted:
    """A checkpoint's dial, and the memory of a server of it.

    Raises: UserError for a damaged checkpoint, a setting that it cannot have, a context beyond the model's, or where
        the memory of the machine does not suffice.
    """
    folder = settings.checkpoint
    checkpoint = read_checkpoint(folder)
    shape = checkpoint.shape
    dtype = held_dtype(checkpoint) if settings.dtype is None else cast(WeightsDtype, settings.dtype)
    dial = _dial(settings, shape)
    if isinstance(dial.measured, DialFile):
        note_machine(folder, dial.measured)
        note_dtype(folder, dtype)
    record = ServeDryRun(
        name=dial.name,
        default=dial.default.setting.name,
        settings=tuple(model.dial.name for model in dial.models().data),
        dtype=dtype,
        total_parameters=total_parameters(shape, with_mtp=True),
        weight_bytes=total_parameters(shape, with_mtp=True) * VALUE_BYTES[dtype],
        slots=settings.slots,
        context_tokens=dial.length,
        cache_bytes=settings.slots * _slot_bytes(shape, dial.length),
        memory_bytes=machine_bytes(),
    )
    _require_memory(record)
    return Counted(checkpoint=checkpoint, dial=dial, dtype=dtype, record=record)


def gates_beside(folder: Path, dial: Dial) -> Gates | None:
    """The gates of a checkpoint, where it has some or its default setting needs them.

    Raises: UserError where the default needs them and they are missing, damaged or of another checkpoint.
    """
    try:
        return gates_of(folder, dial.shape, [HALF])
    except UserError as error:
        if dial.default.turned.neurons != 1:
            raise
        if (folder / GATES_FILE).exists():
            note(f"note: requests cannot ask for a share of the neurons: {error}")
        return None


def _context(settings: ServeSettings, shape: Shape) -> int:
    context = min(shape.context, USUAL_CONTEXT) if settings.context is None else settings.context
    if not 2 <= context <= shape.context:
        raise UserError(f"{context} lies outside 2..{shape.context:,}, the model's own", field="context")
    return context


def _dial(settings: ServeSettings, shape: Shape) -> Dial:
    folder = settings.checkpoint
    measured = _measured(folder)
    turned, reason = resolve(shape, settings.setting, settings.budgets, lambda _: require_measured(measured))
    return Dial(
        name=settings.name or _name(folder),
        created=int((folder / "config.json").stat().st_mtime),
        shape=shape,
        length=_context(settings, shape),
        default=chosen_at(turned, shape, reason),
        measured=measured,
        usual=usual_settings(folder, shape),
    )


def _name(folder: Path) -> str:
    whole = Path(os.path.abspath(folder))  # links are not followed: that of a run leads to a folder named by its hash
    return whole.parent.name if whole.name == CHECKPOINT and whole.parent.name else whole.name


def _measured(folder: Path) -> DialFile | UserError:
    """The measured settings, or why there are none; of a file that is of no use it is said."""
    try:
        return read_dial(folder)
    except UserError as error:
        if (folder / DIAL_FILE).exists():
            note(f"note: requests cannot ask for a speed, an energy or a loss: {error}")
        return error


def _slot_bytes(shape: Shape, context: int) -> int:
    return MOST_LANES * cached_values_per_token(shape, with_mtp=True) * context * CACHED_BYTES


def _require_memory(record: ServeDryRun) -> None:
    """Raises: UserError where weights and cache are more than the machine has, with how many slots fit."""
    if record.weight_bytes + record.cache_bytes <= record.memory_bytes:
        return
    left = record.memory_bytes - record.weight_bytes
    fit = max(0, left * record.slots // record.cache_bytes)
    raise UserError(
        f"{record.slots} answers of {record.context_tokens:,} tokens may take {human_bytes(record.cache_bytes)} beside"
        f" weights of {human_bytes(record.weight_bytes)}, and the machine has {human_bytes(record.memory_bytes)}",
        hint=f"<slots> {fit} fits" if fit else "a smaller <context> needs less",
        field="slots",
    )
