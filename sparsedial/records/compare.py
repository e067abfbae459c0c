"""`compare.json`: several methods that turn parts off, at several shares that stay, side by side."""

from __future__ import annotations

from typing import Literal

from sparsedial.records.evaluation import CheckpointName
from sparsedial.records.prune import CalibrationText, CheckpointCosts, KeptParts, PruneTarget, SecondDomain
from sparsedial.records.quantities import Interval
from sparsedial.records.record import Record
from sparsedial.shape.shape import Shape

COMPARE_FILE = "compare.json"
Axis = Literal["active_parameters", "weight_bytes", "share"]


class ComparedPoint(Record, frozen=True, kw_only=True):
    """One method at one share: what stays, and what that costs and saves. No checkpoint of it is kept."""

    part: Literal["experts", "layers", "neurons", "weights"]  # that is turned off
    method: str
    budget: str
    sequential: bool
    pattern: str | None
    target: PruneTarget
    draws: int  # random choices whose mean loss this is; 1 for a method that does not draw
    kept: KeptParts  # of the first draw
    unscored_experts: tuple[tuple[int, int], ...]
    after: CheckpointCosts
    loss_increase: dict[str, Interval]  # by text: nats per token, window by window
    warnings: tuple[str, ...]

    def stays(self, axis: Axis) -> float:
        """What stays: parameters of a token, bytes of weights, or the share of what could be turned off."""
        costs = self.after
        found = {"active_parameters": costs.active_parameters, "weight_bytes": costs.weight_bytes}
        return found.get(axis, self.target.reached)


class MeasuredPoint(Record, frozen=True, kw_only=True):
    """A point of a comparison that is not done yet, from which a stopped command goes on."""

    point: ComparedPoint
    shape: Shape  # of what stays


class MethodOrder(Record, frozen=True, kw_only=True):
    """The methods of one part at one share, the least loss on the calibration text first."""

    part: Literal["experts", "layers", "neurons", "weights"]
    strength: float  # the share that stays, as it was asked for
    order: tuple[str, ...]
    gaps: tuple[Interval, ...]  # of each but the first above the one before it: nats per token, window by window
    resolved: bool  # whether every gap is surely above 0
    unresolved_reason: str | None


class Compared(Record, frozen=True, kw_only=True):
    """The answer of `prune --compare`."""

    checkpoint: CheckpointName
    calibration: CalibrationText
    second_domain: SecondDomain | None
    second_domain_reason: str | None
    before: CheckpointCosts
    points: tuple[ComparedPoint, ...]
    axis: Axis  # what stays, by which points are compared
    pareto: tuple[int, ...]  # numbers of points that none beats in what stays and in loss on the calibration text
    orders: tuple[MethodOrder, ...]
    picture: str  # its file, beside which lies the same as SVG
    out: str
    wall_seconds: float
    peak_process_bytes: int

    def increase(self, point: ComparedPoint) -> Interval:
        """The loss that a point adds on the calibration text."""
        return point.loss_increase[self.calibration.source]
