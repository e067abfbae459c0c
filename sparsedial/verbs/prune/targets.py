"""How much `prune` leaves, in the user's words: a share, a size, a speed or a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsedial.errors import UserError
from sparsedial.pruning.methods import METHODS
from sparsedial.pruning.target import KINDS, Target
from sparsedial.settings import setting
from sparsedial.units import parse_bytes, parse_count, parse_growth, parse_share_or_zero, parse_times


def stays(value: Any, field: str = "keep") -> float:
    """A share that stays from `0.5` or `50%`, a number as it is."""
    return value if isinstance(value, float) else parse_share_or_zero(value, field)


def all_that_stay(value: Any, field: str = "strengths") -> tuple[float, ...]:
    """Several of them from `.75,50%` or a list."""
    items = value if isinstance(value, list | tuple) else str(value).split(",")
    if not all(str(item).strip() for item in items):
        raise UserError("an entry is empty", hint="write it like .75,.5", field=field)
    return tuple(stays(item, field) for item in items)


@dataclass(frozen=True, kw_only=True)
class PruneTargets:
    """What the smaller checkpoint is, or may be at most; one of them is given."""

    keep: float | None = setting(
        None, "share that stays of the experts, layers, neurons or weights, as 0.5", "SHARE", parse=stays
    )
    total_parameters: float | None = setting(
        None, "instead of a share: the most parameters of the result, as 3B", "N", parse=parse_count
    )
    active_parameters: float | None = setting(
        None, "instead: the most parameters that a token uses, as 400M", "N", parse=parse_count
    )
    memory: float | None = setting(None, "instead: the most bytes of its weights, as 8GB", "SIZE", parse=parse_bytes)
    speed: float | None = setting(
        None, "instead: how many times as fast it writes, at least, as 1.5x; shares are tried", "X", parse=parse_times
    )
    max_loss_increase: float | None = setting(
        None,
        "instead: the most that the loss on the calibration text may grow, as 2%; shares are tried",
        "P",
        parse=parse_growth,
    )

    @property
    def targets(self) -> dict[str, Target]:
        """Those that are given, by the name of their setting."""
        return {
            how.field: Target(kind, getattr(self, how.field))
            for kind, how in KINDS.items()
            if getattr(self, how.field) is not None
        }

    @property
    def target(self) -> Target:
        """The one that is given."""
        (target,) = self.targets.values()
        return target

    def require_one_target(self, example: str) -> None:
        """Raises: UserError where none is given, or several are."""
        given = list(self.targets)
        if not given:
            known = ", ".join(f"<{how.field}>" for how in KINDS.values())
            raise UserError(f"prune: nothing says how much stays; known are {known}", hint=example)
        if len(given) > 1:
            raise UserError(f"goes without <{given[0]}>: each says how much stays", field=given[1])

    def check_target(self, method: str) -> None:
        """Check the target by itself and with a method.

        Raises: UserError.
        """
        target = self.target
        if target.kind == "keep" and not 0 < target.asked < 1:
            raise UserError(
                f"{target.asked:g} does not lie between 0 and 1", hint="0.5 turns half of it off", field="keep"
            )
        if target.kind == "speed" and target.asked <= 1:
            raise UserError(f"{target.asked:g} times is no faster than the original", hint="as 1.5x", field="speed")
        if target.how.shrinks and METHODS[method].part == "weights":
            raise UserError(
                f"{method} turns single weights off, which are stored as zeros: nothing gets smaller or faster",
                hint="choose a <method> of experts, layers or neurons, or say <keep> or <max_loss_increase>",
                field=target.how.field,
            )
