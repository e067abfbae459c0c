"""This process as one of the ranks that train a run; alone it is the only one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsedial.records.run import Mesh, RankHost, RunRanks
from sparsedial.runs.executor import Group
from sparsedial.runs.ranks.board import POLL_SECONDS, Board, Member
from sparsedial.runs.ranks.watch import Watch
from sparsedial.runs.run_store import RunStore
from sparsedial.text.prepare import Text
from sparsedial.training.ranks import ALONE, Alone, Ranks


class Stopped(KeyboardInterrupt):
    """All ranks have agreed to stop after the same step."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What rank 0 tells the others to train, and where what they need lies."""

    group: Group
    text_folder: Path
    text_digest: str
    runs_folder: Path


@dataclass(frozen=True, kw_only=True)
class Finished:
    """There is nothing more to do."""

    answer: Any


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What a process has among others that it has not alone."""

    board: Board
    watch: Watch
    members: tuple[Member, ...]
    backend: str

    @property
    def here(self) -> Member:
        """This process."""
        return self.members[self.board.place.rank]


@dataclass
class Joined:
    """A rank: what the ranks say in a step, who they are, and whether this one was asked to stop."""

    ranks: Alone | Ranks = ALONE
    connection: Connection | None = None
    stopping: bool = False  # a signal has asked for it
    in_steps: bool = False  # where all ranks must do the same, so that none leaves by itself
    leaving: bool = False  # where it says why; torchrun ends all ranks where one has failed

    @property
    def speaks(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self.ranks.index == 0

    def threads_of(self, threads: int) -> int:
        """This rank's share of the threads of a machine: of those ranks that may run on the same cores."""
        if self.connection is None:
            return threads
        here = self.connection.here
        beside = [one for one in self._at_home if set(one.cores) & set(here.cores)]
        return max(1, threads // len(beside))

    @property
    def meters(self) -> bool:
        """Whether this rank's meter counts: each GPU's, and the processors' once on each host."""
        if self.connection is None or self.connection.here.device != "cpu":
            return True
        return self.connection.here == self._at_home[0]

    @property
    def _at_home(self) -> list[Member]:
        """The ranks of this host."""
        assert self.connection is not None
        return [one for one in self.connection.members if one.host == self.connection.here.host]

    def metered_words(self, source: str) -> str:
        """The source of joules that several meters counted."""
        if self.connection is None:
            return source
        on_gpu = self.connection.here.device != "cpu"
        count = self.ranks.count if on_gpu else len({one.host for one in self.connection.members})
        return source if count == 1 else f"{source}, and the same of {count - 1} other {'GPUs' if on_gpu else 'hosts'}"

    def record(self) -> RunRanks | None:
        """What `run.json` says of the ranks; None where one process trained the run."""
        if self.connection is None:
            return None
        names = [one.host for one in self.connection.members]
        return RunRanks(
            count=self.ranks.count,
            mesh=Mesh(data=self.ranks.count, shard=1, expert=1),
            backend=self.connection.backend,
            hosts=tuple(RankHost(name=name, ranks=names.count(name)) for name in dict.fromkeys(names)),
        )

    @contextlib.contextmanager
    def together(self) -> Generator[None]:
        """Within it all ranks do the same; a signal to stop waits for a step after which all have heard of it."""
        self.in_steps = True
        try:
            yield
        finally:
            self.in_steps = False

    def agreed(self, joules: float, due: bool) -> tuple[float, bool, bool]:
        """After a step, the same on all ranks: the joules of all, whether rank 0 finds a state due, whether to stop."""
        counted, dues, stops = self.ranks.sums(
            [joules if self.meters else 0.0, due and self.speaks, self.stopping],
        )
        return counted, dues > 0, stops > 0

    def agree_to_stop(self) -> None:
        """Raises: Stopped where a rank was asked to stop."""
        if self.ranks.sums([self.stopping])[0]:
            raise Stopped

    def tell(self, group: Group, text: Text, store: RunStore) -> None:
        """Order the other ranks to train a group; folders are named so that every machine finds them.

        Raises: KeyboardInterrupt where this rank was asked to stop; what ended another rank.
        """
        if self.connection is None:
            return
        if self.stopping:
            raise KeyboardInterrupt
        self.connection.board.raise_ended()
        order = Order(
            group=group,
            text_folder=text.folder.absolute(),
            text_digest=text.digest,
            runs_folder=store.folder.absolute(),
        )
        self.connection.board.post(order)

    def next_order(self) -> Order | Finished:
        """What rank 0 says next; waits for as long as rank 0 works alone.

        Raises: what ended another rank.
        """
        assert self.connection is not None
        board, asked = self.connection.board, False
        while (order := board.next_order()) is None:
            if self.connection.watch.ended is not None:
                raise self.connection.watch.ended.exception()
            if self.stopping and not asked:
                board.ask_to_stop()
                asked = True
            time.sleep(POLL_SECONDS)
        return order
