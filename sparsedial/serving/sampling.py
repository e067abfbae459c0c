"""How the next token of a text is drawn, as a request says it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sparsedial.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn.

    Raises: UserError for values outside their range.
    """

    temperature: float = 0.8  # 0 takes the likeliest token
    top_k: int | None = None  # draw from this many likeliest tokens
    top_p: float = 1.0  # draw from the likeliest tokens that hold this much probability
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature={self.temperature:g} is below 0, or not finite")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k={self.top_k} is below 1")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p:g} is not above 0 and at most 1")
        if not 0 <= self.seed < 2**62:
            raise UserError(f"seed={self.seed} lies outside 0..{2**62 - 1}")
