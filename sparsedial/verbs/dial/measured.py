"""`dial --measure`: the loss, speed, memory and energy of each setting of a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from sparsedial.errors import UserError, about
from sparsedial.machine.hardware import describe
from sparsedial.model.checkpoint import model_of
from sparsedial.model.digests import digest_of, sha256_of
from sparsedial.model.gates import Gates, write_gates
from sparsedial.model.reading import Checkpoint, read_checkpoint
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import Transformer
from sparsedial.model.turned import at_setting
from sparsedial.pruning.gates import measured_gates
from sparsedial.pruning.layers import KeptLayers
from sparsedial.pruning.quality import Nats, nats_of, too_few
from sparsedial.pruning.sizing import file_bytes
from sparsedial.pruning.speed import Place, Speed, speeds_of, timed_ids
from sparsedial.pruning.windows import Windows
from sparsedial.records.dial_file import DIAL_FILE, GATES_FILE, DialFile, DialPoint, MeasuredDial
from sparsedial.records.record import write
from sparsedial.records.setting import Setting
from sparsedial.records.trained_for import trained_for
from sparsedial.serving.settings import usual_settings
from sparsedial.shape.config import load_config
from sparsedial.shape.shape import Shape
from sparsedial.shape.turned import ALL, SHARES, Turned, distinct, parse_turned
from sparsedial.showing.notes import note
from sparsedial.store import check_writable, pending
from sparsedial.verbs.checkpoint_costs import costs_of
from sparsedial.verbs.dial.settings import DialSettings
from sparsedial.verbs.dial.texts import Texts, dial_texts
from sparsedial.verbs.following import versions
from sparsedial.verbs.origin import require_checkpoint
from sparsedial.verbs.prune.answer import calibration_of


def measured_dial(settings: DialSettings) -> MeasuredDial:
    """Measure each setting on the same windows and in turns, and write the file; gates go into one beside it. Both are
    written at the end.

    Raises: UserError as `dial`.
    """
    began, folder = time.perf_counter(), Path(settings.law)
    out = settings.out or folder / DIAL_FILE
    require_checkpoint(folder)
    _require_no_part(out, folder)
    check_writable(out)
    checkpoint = read_checkpoint(folder)
    turned = asked_turned(folder, checkpoint.shape, settings.settings)
    texts = dial_texts(folder, checkpoint.shape, settings, gated=any(setting.neurons != 1 for setting in turned))
    with pending(out.parent / GATES_FILE) as partial:  # until all is measured, both files stay as they were
        found = _measured(checkpoint, folder, turned, texts, partial)
        write(out, found)
    return MeasuredDial(**dict(found), out=str(out), wall_seconds=time.perf_counter() - began)


def _require_no_part(out: Path, folder: Path) -> None:
    """Raises: UserError for a file that would count as one of the checkpoint's: all but `dial.json` among its files."""
    if out.name != DIAL_FILE and out.resolve().parent == folder.resolve():
        raise UserError(
            f"{out} lies in the checkpoint, which would then be another than was measured",
            hint=f"leave it out, and it is {DIAL_FILE}, or name a file elsewhere",
            field="out",
        )


def _measured(
    checkpoint: Checkpoint, folder: Path, turned: Sequence[Turned], texts: Texts, gates_file: Path
) -> DialFile:
    """What each setting costs. Where one needs gates, they are measured first and written into a file."""
    whole, digest = model_of(checkpoint.shape, checkpoint.tensors), digest_of(folder)
    gates = _gates(whole, texts.calibrating, gates_file, digest)
    models = {setting: at_setting(whole, setting, gates) for setting in turned}
    losses = {setting: _nats(model, texts.scored, setting.name(whole.shape)) for setting, model in models.items()}
    few = too_few(len(texts.scored.ids_WS1))
    note("measuring speed and memory of all settings in turns")
    speeds = speeds_of(models, lambda setting: Place(folder, setting, gates_file), timed_ids(texts.scored))
    return DialFile(
        checkpoint_digest=digest,
        default=Turned().name(whole.shape),
        trained_for=trained_for(load_config(folder)),
        settings=tuple(
            _point(setting, folder, whole.shape, losses, speeds[setting], checkpoint.tensors) for setting in turned
        ),
        text_digest=texts.scored.digest,
        calibration=texts.calibrating and calibration_of(texts.calibrating),
        gates_sha256=None if gates is None else sha256_of(gates_file),
        warnings=() if few is None else (few,),
        machine=describe(),
        versions=versions(),
    )


def asked_turned(folder: Path, shape: Shape, texts: Sequence[str]) -> tuple[Turned, ...]:
    """The settings to measure, the default first: the others are compared with it."""
    with about("settings"):
        if tuple(texts) != ALL:
            return distinct((Turned(), *(parse_turned(text, "settings") for text in texts)), shape)
        shares = () if shape.experts else tuple(Turned(neurons=share) for share in SHARES)
        return distinct((Turned(), *usual_settings(folder, shape), *shares), shape)


def _gates(model: Transformer, windows: Windows | None, file: Path, checkpoint_digest: str) -> Gates | None:
    """Measure a model's gates and write them, where a setting needs them."""
    if windows is None:
        return None
    note(f"measuring gates on {windows.tokens:,} tokens of {windows.source}")
    gates = measured_gates(model, torch.from_numpy(windows.ids_WS1))
    write_gates(file, gates, checkpoint_digest, windows.digest, windows.tokens)
    return gates


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
            file_bytes(kept),
            {nats.windows.source: nats},
            folder,
            speed,
            neurons=setting.neurons,
        ),
        costs_reason=None,
    )
