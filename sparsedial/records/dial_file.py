"""`dial.json`: what each setting of a checkpoint costs, and how much loss it adds."""

from __future__ import annotations

from typing import ClassVar, Literal

from sparsedial.records.prune import CalibrationText, CheckpointCosts
from sparsedial.records.quantities import Interval, Machine
from sparsedial.records.record import Record
from sparsedial.records.setting import Setting
from sparsedial.records.trained_for import TrainedFor

DIAL_FILE = "dial.json"  # beside the files of its checkpoint
GATES_FILE = "dial.gates"  # beside it: the thresholds of settings with a share of the neurons (model/gates.py)


class DialPoint(Record, frozen=True, kw_only=True):
    """One setting, with what was measured of it."""

    setting: Setting
    status: Literal["measured", "declared"]  # declared: named without a measurement
    loss_increase: Interval | None  # nats per token over the default, window by window
    loss_increase_reason: str | None
    costs: CheckpointCosts | None
    costs_reason: str | None


class DialFile(Record, frozen=True, kw_only=True):
    """`dial.json`."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("calibration", "gates_sha256", "warnings")

    checkpoint_digest: str
    default: str  # the name of the setting that the checkpoint was trained at
    trained_for: TrainedFor | None  # null where its configuration names none
    settings: tuple[DialPoint, ...]
    text_digest: str
    calibration: CalibrationText | None = None  # of the gates; null where no setting takes a share of the neurons
    gates_sha256: str | None = None  # of the file of gates that was measured with; null as `calibration`
    warnings: tuple[str, ...] = ()
    machine: Machine
    versions: dict[str, str]


class MeasuredDial(DialFile, frozen=True, kw_only=True):
    """The answer of `dial --measure`: the file, and where it was written."""

    out: str
    wall_seconds: float
