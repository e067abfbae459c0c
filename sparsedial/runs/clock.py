"""The time that a study has taken, and its limit."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Counts the seconds of a study over all its starts."""

    def __init__(
        self, limit_seconds: float, elapsed_seconds: float = 0.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit_seconds = limit_seconds
        self._now = now
        self._start = now() - elapsed_seconds

    def spend(self, seconds: float) -> None:
        """Count seconds as spent that a dry run spares."""
        self._start -= seconds

    @property
    def elapsed(self) -> float:
        """Seconds spent."""
        return self._now() - self._start

    @property
    def remaining(self) -> float:
        """Seconds left; infinite without a limit."""
        return self.limit_seconds - self.elapsed
