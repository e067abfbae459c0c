"""An answer that has not ended: who hears of it, how its tokens are drawn, and what it took so far."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from sparsedial.serving.asks import Reason, Scored, Spent, Told
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
    top: int | None = None  # so many of the likeliest tokens are told with each token; None: no log-probabilities
    prompt_scores: list[Scored] = field(default_factory=list)  # that were not told yet

    def tell(self, token: int, scored: Scored | None = None) -> None:
        """Tell the next token."""
        self._tell_prompt()
        if not self.forgotten:
            self._tell(lambda: self.told.token(token, scored))

    def _tell_prompt(self) -> None:
        """Tell how likely the prompt is, once, where that is known."""
        scores, self.prompt_scores = self.prompt_scores, []
        if scores and not self.forgotten:
            self._tell(lambda: self.told.prompt(scores))

    def _tell(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception:  # of who hears this answer: the others go on
            traceback.print_exc()
            self.forgotten = True

    def tell_end(self, reason: Reason, problem: str | None = None, end_token: Scored | None = None) -> None:
        """Tell that it has ended, and what it took until now."""
        self._tell_prompt()
        if self.forgotten:
            return
        now = time.perf_counter()
        spent = Spent(
            cached=self.answer.cached or 0,
            waited=(self.begun or now) - self.asked,
            seconds=now - self.asked,
            joules=self.joules,
        )
        self._tell(lambda: self.told.ended(reason, spent, problem, end_token))
