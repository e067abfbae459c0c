"""The settings that `generate` and `serve` share: how weights are held, and the setting of the dial or its budget."""

from __future__ import annotations

from typing import Any, get_args

from sparsedial.errors import UserError
from sparsedial.records.answers import WeightsDtype
from sparsedial.serving.budget import BUDGETS
from sparsedial.settings import setting
from sparsedial.shape.turned import setting_text
from sparsedial.units import parse_growth, parse_joules_per_token, parse_speed
from sparsedial.verbs.asked_setting import require_one

HELD = get_args(WeightsDtype)
LIMITS = {  # of each budget: its help, how a value of it is written, and what reads that
    "at_least": ("a speed: take the setting of the lowest loss that keeps it, by dial.json", "40tok/s", parse_speed),
    "at_most": ("an energy: the same", "2J/100tok", parse_joules_per_token),
    "max_loss_increase": (
        "an added loss over the default's: take the cheapest setting that keeps it",
        "1%",
        parse_growth,
    ),
}


def dtype_field() -> Any:
    """The type in which weights are held."""
    words = "hold the weights in float32, or in bfloat16: half the bytes [as the checkpoint has them]"
    return setting(None, words, "D")


def limit_field(kind: str) -> Any:
    """A budget that chooses the setting."""
    words, written, parse = LIMITS[kind]
    return setting(None, words, written, parse=parse)


def dial_field() -> Any:
    """The setting of the dial by its name."""
    words = "setting of the checkpoint's dial, as k=2, p=0.5, neurons=0.5, skip=3+7 or k=2,skip=3 [as it was trained]"
    return setting(None, words, "S", parse=setting_text)


class AtSetting:
    """What settings with all of these fields share."""

    dtype: str | None
    setting: str | None

    def require_fit(self) -> None:
        """Raises: UserError for a type in which weights are not held, or where two of the fields choose the setting."""
        if self.dtype not in (None, *HELD):
            raise UserError(f"weights are not held in '{self.dtype}'", hint=f"one of {', '.join(HELD)}", field="dtype")
        require_one(setting=self.setting, **self.budgets)

    @property
    def budgets(self) -> dict[str, float | None]:
        """The limits that choose the setting."""
        return {name: getattr(self, name) for name in BUDGETS}
