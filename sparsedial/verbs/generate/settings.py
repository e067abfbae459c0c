"""The settings of `generate`: flags on the command line, keyword arguments in Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.settings import setting
from sparsedial.verbs.setting_fields import AtSetting, dial_field, dtype_field, limit_field

EXAMPLE = "like `sparsedial generate runs/train/checkpoint 'Once upon a time'`"
MOST_TOKENS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(AtSetting):
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
    dtype: str | None = dtype_field()
    at_least: float | None = limit_field("at_least")
    at_most: float | None = limit_field("at_most")
    max_loss_increase: float | None = limit_field("max_loss_increase")
    setting: str | None = dial_field()

    def __post_init__(self) -> None:
        self.require_fit()
        if not 1 <= self.tokens <= MOST_TOKENS:
            raise UserError(f"{self.tokens} lies outside 1..{MOST_TOKENS:,}", field="tokens")
        if self.speculate and self.temperature:
            raise UserError(
                f"gives the greedy text, so it does not go with temperature {self.temperature:g}",
                hint="add <temperature> 0",
                field="speculate",
            )
