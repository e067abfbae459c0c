"""A study's folder in which tests let workers in."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from sparsedial.records.launch import Hello
from sparsedial.runs.machines.joining import dial, find_meeting, serve
from sparsedial.runs.machines.setup import setup_here
from sparsedial.runs.policy import carry_out
from sparsedial.runs.run_store import RunStore
from tests.runs.test_local import Notes

PATIENCE = 120.0  # seconds, for a machine that is busy with other things


@dataclass
class House:
    """A study's folder where workers may join, with its machines, and what was said."""

    folder: Path
    text: object
    said: list[str] = field(default_factory=list)
    leaves: list[Connection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = RunStore(self.folder / "runs")

    def carry(self, groups, workers: int, notes: Notes | None = None):
        """The runs of groups, with so many workers of this machine."""
        executor = self.machines.executor("cpu", self.text, self.store, workers)
        return carry_out(groups, executor=executor, shelf=self.store, listener=notes or Notes())

    def join(self, host: str) -> threading.Thread:
        """A worker in a thread of this process, once it is let in."""
        connection = dial(find_meeting(self.folder), hello_of(host))
        leave, theirs = Pipe()
        self.leaves.append(leave)
        thread = threading.Thread(target=serve, args=(connection, self.folder, theirs))
        thread.start()
        self.wait_for(host)
        return thread

    def wait_for(self, host: str) -> None:
        """Until a worker of this name has been let in."""
        while host not in {worker.host for worker in self.site.joined}:
            assert self.site.doorbell.poll(PATIENCE), self.said
            self.site.admit()

    def trained(self, host: str) -> int:
        """The number of runs that a machine trained."""
        return sum(len(one.runs) for one in self.machines.so_far.hosts if one.name == host)


def hello_of(host: str) -> Hello:
    return Hello(host=host, process=os.getpid(), setup=setup_here())
