"""What the ranks of a run tell each other outside of its steps: a small store at the place where they meet.

Who is there, who is still alive, what to do next, and why it ended. Nothing here waits for all ranks.
"""

from __future__ import annotations

import pickle
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from torch import distributed

from sparsedial.errors import RankLost, UserError
from sparsedial.runs.ranks.place import Place

JOIN_SECONDS = 300.0  # for all ranks to come: the slowest imports everything from a network's disk
POLL_SECONDS = 0.1
_torch: Any = distributed  # its types lack most of what its stores do
_stores: dict[Place, Any] = {}  # of this process: a script may train several models, and a port is listened at once
ENDED, HELLO, BEAT, ORDER, STOP, LEFT = "ended", "hello", "beat", "order", "stop", "left"


class NotJoined(UserError):
    """A process that does not reach the others, so that nobody but itself can say so."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One of the ranks, and what it runs on."""

    rank: int
    host: str
    device: str  # kind of device
    cores: tuple[int, ...]  # that it may run on
    gpu: str | None  # which one; None on a CPU
    versions: str


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Why a rank has left, or had to be given up; the first that is written counts for all."""

    rank: int
    host: str
    kind: Literal["refused", "lost", "stopped", "failed"]
    error: UserError | None = None
    trace: str = ""

    def exception(self) -> BaseException:
        """What the other ranks raise."""
        where = f"rank {self.rank} on {self.host}"
        if self.kind == "stopped":
            return KeyboardInterrupt()
        if self.error is None:
            return RuntimeError(f"{where} failed:\n{self.trace}")
        if self.kind == "lost" or self.rank == 0:
            return self.error
        problem, hint = self.error.marked
        problem = f"<{self.error.field}>: {problem}" if self.error.field else problem
        return type(self.error)(f"{where}: {problem}", hint)


class Board:
    """The store. Its two halves have a connection each, so that the one that watches waits for nothing.

    Raises: NotJoined where the other ranks are not reached.
    """

    def __init__(
        self, place: Place, number: int, seconds: float = JOIN_SECONDS, listening: socket.socket | None = None
    ) -> None:
        self.place = place
        self.store = _stores.get(place) or _met(place, seconds, listening)
        if listening is None:
            _stores[place] = self.store
        prefix = f"sparsedial/{place.attempt}/{number}"
        self._orders = _torch.PrefixStore(prefix, self.store)
        self._watched = _torch.PrefixStore(prefix, self.store.clone())
        self.for_group = _torch.PrefixStore(f"{prefix}/group", self.store)  # where the group of a step's messages meets
        self._beats = self._posted = self._taken = 0

    def gather(self, member: Member, processes: Sequence[BaseProcess] = ()) -> tuple[Member, ...]:
        """All ranks, once all have come; `processes` are those that rank 0 has started itself.

        Raises: UserError with those that are missing, RankLost where a process has ended.
        """
        self.beat()
        self._orders.set(f"{HELLO}/{member.rank}", pickle.dumps(member))
        end, names = time.monotonic() + JOIN_SECONDS, [f"{HELLO}/{rank}" for rank in range(self.place.count)]
        while not self._orders.check(names):
            self.raise_ended()
            for rank, process in enumerate(processes, start=1):
                if process.exitcode:
                    raise RankLost(f"rank {rank} ended with status {process.exitcode} before it had joined")
            if time.monotonic() > end:
                missing = [str(rank) for rank, name in enumerate(names) if not self._orders.check([name])]
                raise UserError(
                    f"rank {', '.join(missing)} of {self.place.count} did not come within {JOIN_SECONDS:g} s",
                    hint="all machines must be started with the same command",
                )
            time.sleep(POLL_SECONDS)
        self.raise_ended()  # of a rank that came before, and was stopped while it waited for this one
        return tuple(pickle.loads(value) for value in self._orders.multi_get(names))

    def post(self, order: Any) -> None:
        """Tell all other ranks what to do next."""
        self._posted += 1
        self._orders.set(f"{ORDER}/{self._posted}", pickle.dumps(order))

    def next_order(self) -> Any | None:
        """What rank 0 says next; None where it has not said it yet."""
        name = f"{ORDER}/{self._taken + 1}"
        if not self._orders.check([name]):
            return None
        self._taken += 1
        return pickle.loads(self._orders.get(name))

    def beat(self) -> None:
        """Say that this rank is alive."""
        self._beats += 1
        self._watched.set(f"{BEAT}/{self.place.rank}", str(self._beats))

    def beats(self, ranks: list[int]) -> list[bytes]:
        """How often each of these ranks has said that it is alive."""
        return self._watched.multi_get([f"{BEAT}/{rank}" for rank in ranks])

    def end(self, ended: Ended) -> Ended:
        """Say why this rank leaves; what counts is what was said first."""
        kept = self._watched.compare_set(ENDED, "", pickle.dumps(ended).hex())
        return pickle.loads(bytes.fromhex(kept.decode()))

    def ended(self) -> Ended | None:
        """What was said first; None where all are to go on."""
        if not self._watched.check([ENDED]):
            return None
        return pickle.loads(bytes.fromhex(self._watched.get(ENDED).decode()))

    def raise_ended(self) -> None:
        """Raises: what ended another rank."""
        found = self.ended()
        if found is not None:
            raise found.exception()

    def ask_to_stop(self) -> None:
        """Ask rank 0 to stop, while it works alone."""
        self._orders.set(STOP, b"1")

    def asked_to_stop(self) -> bool:
        """Whether a rank has asked for it."""
        return self._watched.check([STOP])

    def leave(self, seconds: float) -> None:
        """Leave the store; as rank 0, which may have it, not before the others that are there, or so many seconds."""
        if self.place.rank:
            self._orders.add(LEFT, 1)
            return
        end, ended = time.monotonic() + seconds, self.ended()
        others = self.place.count - (2 if ended is not None and ended.kind == "lost" else 1)
        while self._orders.add(LEFT, 0) < others and time.monotonic() < end:
            time.sleep(POLL_SECONDS / 5)


def _met(place: Place, seconds: float, listening: socket.socket | None) -> Any:
    try:
        return _torch.TCPStore(
            place.address,
            place.port,
            is_master=place.rank == 0 and not place.served,
            timeout=timedelta(seconds=seconds),
            wait_for_workers=False,
            master_listen_fd=None if listening is None else listening.detach(),
        )
    except RuntimeError as error:
        raise _unreached(place, error) from error


def _unreached(place: Place, error: RuntimeError) -> NotJoined:
    where = f"{place.address}:{place.port}"
    if place.rank == 0 and not place.served:
        said = str(error).partition(". ")[0]
        return NotJoined(f"rank 0 cannot listen at {where}: {said}", hint="name a free port in MASTER_PORT")
    return NotJoined(
        f"rank {place.rank} does not reach rank 0 at {where}",
        hint="MASTER_ADDR and MASTER_PORT name a place that all machines reach",
    )


def gone(member: Member, how: str) -> Ended:
    """That a rank is there no more."""
    error = RankLost(
        f"rank {member.rank} on {member.host} {how}",
        hint="run the same command again, with as many ranks as there are: it goes on from the last saved state",
    )
    return Ended(rank=member.rank, host=member.host, kind="lost", error=error)
