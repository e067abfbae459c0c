"""How the next token of a text is drawn, as a request says it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sparsedial.errors import UserError

MOST_PENALTY, MOST_BIAS = 2, 100  # as OpenAI has it


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn.

    Raises: UserError for values outside their range.
    """

    temperature: float = 0.8  # 0 takes the likeliest token
    top_k: int | None = None  # draw from this many likeliest tokens
    top_p: float = 1.0  # draw from the likeliest tokens that hold this much probability
    seed: int = 0
    frequency_penalty: float = 0.0  # less for a token, each time that it was written
    presence_penalty: float = 0.0  # less for a token that was written
    logit_bias: tuple[tuple[int, float], ...] = ()  # more for these tokens

    @property
    def adjusts(self) -> bool:
        """Whether logits are changed before a token is drawn from them."""
        return bool(self.frequency_penalty or self.presence_penalty or self.logit_bias)

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature={self.temperature:g} is below 0, or not finite")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k={self.top_k} is below 1")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p:g} is not above 0 and at most 1")
        for name in ("frequency_penalty", "presence_penalty"):
            if not abs(getattr(self, name)) <= MOST_PENALTY:
                raise UserError(f"{name}={getattr(self, name):g} lies outside -{MOST_PENALTY}..{MOST_PENALTY}")
        if any(not abs(bias) <= MOST_BIAS for _, bias in self.logit_bias):
            raise UserError(f"logit_bias lies outside -{MOST_BIAS}..{MOST_BIAS}")
        if not 0 <= self.seed < 2**62:
            raise UserError(f"seed={self.seed} lies outside 0..{2**62 - 1}")
