"""An answer that has not ended: who hears of it, how its tokens are drawn, and what it took so far."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field

from sparsedial.serving.asks import Reason, Spent, Told
from sparsedial.serving.drawing import Draws
from sparsedial.serving.slots import Answer


@dataclass(eq=False, kw_only=True)
class OpenAnswer:
    """An answer from when it is asked for. What the one who hears of it raises ends nothing but this answer."""

    answer: Answer
    told: Told
    draws: Draws
    asked: float = field(default_factory=time.perf_counter)
    begun: float | None = None  # when its prompt was begun to be read
    joules: float = 0.0
    forgotten: bool = False  # nobody hears of it any more

    def tell(self, token: int) -> None:
        """Tell the next token."""
        if self.forgotten:
            return
        try:
            self.told.token(token)
        except Exception:
            traceback.print_exc()
            self.forgotten = True

    def tell_end(self, reason: Reason, problem: str | None = None) -> None:
        """Tell that it has ended, and what it took until now."""
        if self.forgotten:
            return
        now = time.perf_counter()
        spent = Spent(
            cached=self.answer.cached or 0,
            waited=(self.begun or now) - self.asked,
            seconds=now - self.asked,
            joules=self.joules,
        )
        try:
            self.told.ended(reason, spent, problem)
        except Exception:
            traceback.print_exc()
