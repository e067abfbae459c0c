"""`dial --measure`: the loss, speed, memory and energy of each setting of a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sparsedial.errors import UserError, about
from sparsedial.machine.hardware import describe
from sparsedial.model.checkpoint import model_of
from sparsedial.model.digests import digest_of
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import Transformer
from sparsedial.model.turned import at_setting
from sparsedial.pruning.layers import KeptLayers
from sparsedial.pruning.quality import Nats, nats_of
from sparsedial.pruning.speed import Place, Speed, speeds_of
from sparsedial.pruning.windows import Windows, context_of, read_windows
from sparsedial.records.dial_file import DIAL_FILE, DialFile, DialPoint, MeasuredDial
from sparsedial.records.record import write
from sparsedial.records.setting import Setting
from sparsedial.records.trained_for import trained_for
from sparsedial.shape.config import load_config
from sparsedial.shape.shape import Shape
from sparsedial.shape.turned import ALL, Turned, distinct, parse_turned
from sparsedial.showing.notes import note, note_skipped
from sparsedial.store import check_writable
from sparsedial.text.tokenizer import load_tokenizer
from sparsedial.verbs.asked_setting import usual_settings
from sparsedial.verbs.checkpoint_costs import costs_of
from sparsedial.verbs.dial_settings import DialSettings
from sparsedial.verbs.following import versions
from sparsedial.verbs.origin import require_checkpoint


def measured_dial(settings: DialSettings) -> MeasuredDial:
    """Measure each setting on the same windows and in turns, and write the file.

    Raises: UserError as `dial`.
    """
    began, folder = time.perf_counter(), Path(settings.law)
    out = settings.out or folder / DIAL_FILE
    require_checkpoint(folder)
    check_writable(out)
    checkpoint = read_checkpoint(folder)
    turned = _turned(folder, checkpoint.shape, settings.settings)
    windows = _windows(folder, checkpoint.shape, settings)
    whole = model_of(checkpoint.shape, checkpoint.tensors)
    models = {setting: at_setting(whole, setting) for setting in turned}
    losses = {setting: _nats(model, windows, setting.name(whole.shape)) for setting, model in models.items()}
    note("measuring speed and memory of all settings in turns")
    speeds = speeds_of(models, lambda setting: Place(folder, setting))
    found = DialFile(
        checkpoint_digest=digest_of(folder),
        default=Turned().name(whole.shape),
        trained_for=trained_for(load_config(folder)),
        settings=tuple(
            _point(setting, folder, whole.shape, losses, speeds[setting], checkpoint.tensors) for setting in turned
        ),
        text_digest=windows.digest,
        machine=describe(),
        versions=versions(),
    )
    write(out, found)
    return MeasuredDial(**dict(found), out=str(out), wall_seconds=time.perf_counter() - began)


def _turned(folder: Path, shape: Shape, texts: Sequence[str]) -> tuple[Turned, ...]:
    """The settings to measure, the default first: the others are compared with it."""
    with about("settings"):
        asked = (
            usual_settings(folder, shape) if tuple(texts) == ALL else [parse_turned(one, "settings") for one in texts]
        )
        turned = distinct((Turned(), *asked), shape)
    if len(turned) == 1 and not shape.experts:
        raise UserError(
            f"{folder} is dense: without experts there is nothing to turn but layers",
            hint="name some: <settings> skip=3",
        )
    return turned


def _windows(folder: Path, shape: Shape, settings: DialSettings) -> Windows:
    context = context_of(shape, settings.context)
    sizes = {"vocab_size": shape.vocab_size, "context": context, "tokens": settings.scored_tokens}
    windows = read_windows(settings.text, load_tokenizer(folder), field="text", **sizes)
    note_skipped(windows.skipped)
    return windows


def _nats(model: Transformer, windows: Windows, name: str) -> Nats:
    note(f"measuring the loss at {name}")
    return nats_of(model, {windows.source: windows})[windows.source]


def _point(
    setting: Turned,
    folder: Path,
    shape: Shape,
    losses: Mapping[Turned, Nats],
    speed: Speed,
    tensors: Sequence[NamedTensor],
) -> DialPoint:
    nats = losses[setting]
    kept = KeptLayers(tuple(setting.kept(shape)), shape.layers).stream(tensors)
    return DialPoint(
        setting=Setting.of(setting, shape),
        status="measured",
        loss_increase=nats.above(losses[Turned()]),
        loss_increase_reason=None,
        costs=costs_of(
            setting.shape(shape),
            sum(tensor.nbytes for tensor in kept),
            {nats.windows.source: nats},
            folder,
            speed,
        ),
        costs_reason=None,
    )
