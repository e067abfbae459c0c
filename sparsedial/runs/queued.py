"""The queue that every executor has."""

from __future__ import annotations

from collections import deque

from sparsedial.runs.executor import Group


class Queued:
    """Keeps submitted groups in the order in which they will start."""

    def __init__(self) -> None:
        self._queue: deque[Group] = deque()

    def submit(self, group: Group, *, first: bool = False) -> None:
        """Add a group to the end of the queue, or to its front."""
        if first:
            self._queue.appendleft(group)
        else:
            self._queue.append(group)
