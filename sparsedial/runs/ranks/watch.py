"""Threads in every rank: they say that it is alive, and find out when another is not, or has ended the work.

A message between ranks waits for all of them. If one has gone, the others may wait in code that nothing interrupts, so
this thread ends the process where its main thread does not come back.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess

from sparsedial.errors import AGAIN, BAD_INPUT, FAILED, INTERRUPTED, UserError
from sparsedial.runs.ranks.board import Board, Ended, Member, gone

BEAT_SECONDS = 0.5
LOST_SECONDS = 60.0  # without a sign of life, after which a rank is given up
SUSPECT_SECONDS = 5.0  # the same where a message has failed
GRACE_SECONDS = 20.0  # for the main thread to leave by itself


class Watch(threading.Thread):
    """Watches rank 0, or as rank 0 all others, of which `processes` are its own children."""

    def __init__(
        self,
        board: Board,
        members: Sequence[Member],
        processes: Sequence[BaseProcess] = (),
        asked_to_stop: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name="watch of ranks", daemon=True)
        self._board, self._members, self._processes = board, members, processes
        self._asked_to_stop = asked_to_stop
        self._others = list(range(1, len(members))) if board.place.rank == 0 else [0]
        self._beats = [b""] * len(self._others)
        self._moved = [time.monotonic()] * len(self._others)
        self._suspecting, self._left, self._looked = False, threading.Event(), time.monotonic()
        self.ended: Ended | None = None

    def run(self) -> None:
        """Watch until this rank leaves. A look may wait without end for a machine that is lost, so it has a thread."""
        threading.Thread(target=self._keep_looking, name="look at ranks", daemon=True).start()
        while self.ended is None and not self._left.wait(BEAT_SECONDS):
            if time.monotonic() - self._looked > LOST_SECONDS:
                self.ended = gone(self._members[0], f"has not answered for {LOST_SECONDS:g} s")
        if not self._left.wait(GRACE_SECONDS) and self.ended is not None:
            self._give_up(self.ended)

    def _keep_looking(self) -> None:
        while self.ended is None and not self._left.is_set():
            try:
                self._look()
            except RuntimeError:  # the store's: it went with rank 0, or with what started the ranks
                self.ended = gone(self._members[0], "has gone, or what started the ranks")
            self._looked = time.monotonic()
            self._left.wait(BEAT_SECONDS)

    def leave(self) -> None:
        """This rank leaves by itself."""
        self._left.set()

    def cause(self, seconds: float) -> Ended | None:
        """What another rank ended with, after a message has failed; waits a little for it."""
        self._suspecting = True
        end = time.monotonic() + seconds
        while self.ended is None and time.monotonic() < end:
            time.sleep(BEAT_SECONDS / 5)
        return self.ended

    def _look(self) -> None:
        board = self._board
        board.beat()
        if board.place.rank == 0 and board.asked_to_stop():
            self._asked_to_stop()
        found = board.ended()
        if found is None and (lost := self._lost()) is not None:
            found = board.end(lost)
        self.ended = found

    def _lost(self) -> Ended | None:
        """The first rank that is there no more."""
        for rank, process in enumerate(self._processes, start=1):
            if process.exitcode is not None:
                how = f"was killed by signal {-process.exitcode}" if process.exitcode < 0 else "has ended"
                return gone(self._members[rank], how)
        most, now = SUSPECT_SECONDS if self._suspecting else LOST_SECONDS, time.monotonic()
        for index, beats in enumerate(self._board.beats(self._others)):
            if beats != self._beats[index]:
                self._beats[index], self._moved[index] = beats, now
            elif now - self._moved[index] > most:
                return gone(self._members[self._others[index]], f"has given no sign of life for {most:g} s")
        return None

    def _give_up(self, ended: Ended) -> None:
        """End this process, whose main thread waits for a rank that does not come; rank 0 says why."""
        if self._board.place.rank == 0:
            os.write(2, ("\n".join(_lines(ended)) + "\n").encode())
        for process in self._processes:
            process.kill()
        os._exit({"refused": BAD_INPUT, "stopped": INTERRUPTED}.get(ended.kind, FAILED))


def _lines(ended: Ended) -> list[str]:
    """What rank 0 says of it."""
    if ended.kind == "stopped":
        return [f"stopped; {AGAIN}"]
    error = ended.exception()
    problem, hint = error.on_command_line() if isinstance(error, UserError) else (str(error), None)
    return [f"error: {problem}", *([f"hint: {hint}"] if hint else [])]
