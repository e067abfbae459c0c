"""The settings of `generate`: flags on the command line, keyword arguments in Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from sparsedial.errors import UserError
from sparsedial.records.answers import WeightsDtype
from sparsedial.serving.budget import BUDGETS
from sparsedial.settings import setting
from sparsedial.shape.turned import setting_text
from sparsedial.units import parse_growth, parse_joules_per_token, parse_speed
from sparsedial.verbs.asked_setting import require_one

EXAMPLE = "like `sparsedial generate runs/train/checkpoint 'Once upon a time'`"
HELD = get_args(WeightsDtype)
MOST_TOKENS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """The checkpoint, the prompt, and how tokens are sampled."""

    checkpoint: Path = setting(help="a checkpoint folder", positional=True, example=EXAMPLE)
    prompt: str = setting(help="the text to continue", positional=True, any_words=True, example=EXAMPLE)
    tokens: int = setting(200, "maximum number of new tokens", "N")
    temperature: float = setting(0.8, "sampling temperature; 0 always takes the most likely token", "T")
    top_k: int | None = setting(None, "sample from the K most likely tokens", "K")
    top_p: float = setting(1.0, "sample from the most likely tokens up to this total probability", "P")
    seed: int = setting(0, "seed for sampling", "N")
    chat: bool = setting(False, "answer the prompt as the message of a user, by the tokenizer's chat template")
    speculate: bool = setting(
        False, "draft tokens with multi-token prediction: the greedy text (up to rounding) in fewer passes"
    )
    dtype: str | None = setting(
        None, "hold the weights in float32, or in bfloat16: half the bytes [as the checkpoint has them]", "D"
    )
    at_least: float | None = setting(
        None, "a speed: take the setting of the lowest loss that keeps it, by dial.json", "40tok/s", parse=parse_speed
    )
    at_most: float | None = setting(None, "an energy: the same", "2J/100tok", parse=parse_joules_per_token)
    max_loss_increase: float | None = setting(
        None, "an added loss over the default's: take the cheapest setting that keeps it", "1%", parse=parse_growth
    )
    setting: str | None = setting(
        None,
        "setting of the checkpoint's dial, as k=2, p=0.5, neurons=0.5, skip=3+7 or k=2,skip=3 [as it was trained]",
        "S",
        parse=setting_text,
    )

    def __post_init__(self) -> None:
        if self.dtype not in (None, *HELD):
            raise UserError(f"weights are not held in '{self.dtype}'", hint=f"one of {', '.join(HELD)}", field="dtype")
        if not 1 <= self.tokens <= MOST_TOKENS:
            raise UserError(f"{self.tokens} lies outside 1..{MOST_TOKENS:,}", field="tokens")
        require_one(setting=self.setting, **self.budgets)
        if self.speculate and self.temperature:
            raise UserError(
                f"gives the greedy text, so it does not go with temperature {self.temperature:g}",
                hint="add <temperature> 0",
                field="speculate",
            )

    @property
    def budgets(self) -> dict[str, float | None]:
        """The limits that choose a setting."""
        return {name: getattr(self, name) for name in BUDGETS}
