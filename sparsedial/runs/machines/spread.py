"""The executor of several machines: this one's workers, and those of others that have joined."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from sparsedial.runs.executor import Event, Group, Lost
from sparsedial.runs.local import WAIT_SECONDS, Local
from sparsedial.runs.machines.channel import GONE
from sparsedial.runs.machines.site import RemoteWorker, Site
from sparsedial.runs.pool import Pool
from sparsedial.runs.worker import Alive, Broken, Done, Message, Order, Refused, event_of


class Spread(Local):
    """Executes groups on this machine as `Local` does, and on workers that joined; they may come and go at any time.

    Timed runs stay on this machine, since seconds are compared on one. So does a group that another machine gave back,
    for whatever reason: where the fault is the run's own, it is then seen here as without other machines.
    """

    def __init__(
        self, *, text_folder: Path, runs_folder: Path, workers: int, site: Site, pool: Pool | None = None
    ) -> None:
        super().__init__(text_folder=text_folder, runs_folder=runs_folder, workers=workers, pool=pool)
        self._site = site
        self._text = os.path.relpath(text_folder, site.folder)
        self._given_back: set[str] = set()  # hashes of jobs

    def __exit__(self, *reason: object) -> None:
        """End this machine's workers, and those of others that have work: nobody waits for it any more."""
        for worker in [worker for worker in self._site.joined if worker.group]:
            self._site.remove(worker, "is sent away")
        super().__exit__(*reason)

    def wait(self) -> list[Event]:
        """The events of all workers; waits at most a second.

        Raises: UserError where a run cannot be done on this machine.
        """
        self._site.admit()
        self._hand_out()
        lost = self._hand_on()
        joined = {worker.connection: worker for worker in self._site.joined}
        watched = [*self._pipes(), *joined, self._site.doorbell]
        ready = wait(watched, timeout=0 if lost else WAIT_SECONDS)
        events: list[Event] = [*lost, *self._own_events(ready)]
        for pipe in ready:
            if isinstance(pipe, Connection) and pipe in joined:
                events += self._heard(joined[pipe])
        for worker in self._site.silent():
            events += self._gone(worker, "is silent")
        return events

    def _hand_on(self) -> list[Lost]:
        """Give waiting groups to joined workers that are idle; what those had that turn out to be gone."""
        lost: list[Lost] = []
        for worker in [worker for worker in self._site.joined if not worker.group]:
            group = next((group for group in self._queue if self._may_leave(group)), None)
            if group is None:
                break
            self._queue.remove(group)
            worker.group = group
            try:
                worker.connection.send(Order(text=self._text, group=group))
            except GONE:
                lost += self._gone(worker, "is gone")
        return lost

    def _may_leave(self, group: Group) -> bool:
        """Whether a group may go to another machine."""
        return not any(task.alone or task.job.hash in self._given_back for task in group)

    def _heard(self, worker: RemoteWorker) -> Sequence[Event]:
        try:
            message: Message | Alive = worker.connection.recv()
        except GONE:
            return self._gone(worker, "is gone")
        worker.heard = time.monotonic()
        if isinstance(message, Alive):
            return []
        if isinstance(message, Refused | Broken):
            why = str(message.error) if isinstance(message, Refused) else message.trace.strip().rpartition("\n")[2]
            return self._gone(worker, f"is sent away, since it could not train a run: {why}")
        group = worker.group
        if isinstance(message, Done):
            worker.group = ()
        return [event_of(message, group, worker.host)]

    def _gone(self, worker: RemoteWorker, why: str) -> Sequence[Lost]:
        """Forget a worker; what it had is given back."""
        self._site.remove(worker, why)
        self._given_back |= {task.job.hash for task in worker.group}
        return [Lost(group=worker.group, host=worker.host)] if worker.group else []
