"""What is asked of a smaller checkpoint: how much stays of a part, or what the result may be or cost. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sparsedial.records.prune import TargetKind
from sparsedial.units import human_factor, human_percent


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of target."""

    field: str  # the setting that asks for it
    words: Callable[[float], str]
    shrinks: bool  # whether it needs something to get smaller or faster
    searched: bool = False  # whether shares must be tried; else the sizes of tensors say which keeps it


def percent(share: float) -> str:
    """A share in percent, to a thousandth of one, below which a growth of a loss is none."""
    return human_percent(round(share, 5) + 0.0)  # not -0


KINDS: Mapping[TargetKind, Kind] = {
    "keep": Kind(field="keep", words="{:.4g}".format, shrinks=False),
    "total_parameters": Kind(field="total_parameters", words="{:,.0f} parameters".format, shrinks=True),
    "active_parameters": Kind(
        field="active_parameters", words="{:,.0f} parameters that a token uses".format, shrinks=True
    ),
    "memory_bytes": Kind(field="memory", words="{:,.0f} bytes of weights".format, shrinks=True),
    "speed": Kind(
        field="speed", words=lambda times: f"{human_factor(times)} times the speed", shrinks=True, searched=True
    ),
    "max_loss_increase": Kind(
        field="max_loss_increase", words=lambda share: f"{percent(share)} more loss", shrinks=False, searched=True
    ),
}


@dataclass(frozen=True)
class Target:
    """What is asked for."""

    kind: TargetKind
    asked: float

    @property
    def how(self) -> Kind:
        """What its kind is."""
        return KINDS[self.kind]

    @property
    def words(self) -> str:
        """What is asked for, in words; a growth of the loss with all of its digits."""
        if self.kind == "max_loss_increase":
            return f"{human_percent(self.asked, 4)} more loss"
        return self.how.words(self.asked)
