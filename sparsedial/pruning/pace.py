"""How far a calibration is: a line about its layers from time to time."""

from __future__ import annotations

import time
from collections.abc import Callable

from sparsedial.units import human_seconds

SAID_SECONDS = 15.0  # between two lines


class Pace:
    """Hears how many layers are done, and says at most every 15 seconds how long the others take."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._began: float | None = None
        self._first, self._done, self._said = 0, 0, 0.0

    def heard(self, done: int, of: int) -> None:
        """So many layers are done. A number that is not above the last one begins another passage."""
        now = self._clock()
        if self._began is None or done <= self._done:
            self._first, self._began, self._said = done, now, now
        elif now - self._said >= SAID_SECONDS and done < of:
            left = (now - self._began) / (done - self._first) * (of - done)
            self._say(f"layer {done} of {of}, about {human_seconds(round(left) or 1)} left")
            self._said = now
        self._done = done
