"""The machines that train a study's runs, this one and those whose workers join; and who trained what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from sparsedial.records.launch import HostRuns, LaunchSoFar
from sparsedial.runs.choosing import executor_for
from sparsedial.runs.executor import Ended, Event, Executor, Group, Lost
from sparsedial.runs.machines.site import Site
from sparsedial.runs.machines.spread import Spread
from sparsedial.runs.pool import Pool
from sparsedial.runs.run_store import RunStore
from sparsedial.text.prepare import Text
from sparsedial.units import count_words, human_seconds

NAME_DIGITS = 16  # of a run's hash, as its folder is named
WAIT_SECONDS = 300.0  # for workers that are expected


@dataclass
class Machines:
    """This machine by its name, what all have done so far, and where others join; None where none do."""

    here: str
    so_far: LaunchSoFar
    site: Site | None = None
    pool: Pool = field(default_factory=Pool)  # of this machine's workers
    expected: int = 0  # workers of other machines that are waited for before the grid is laid

    def executor(self, device: str, text: Text, store: RunStore, workers: int) -> Executor:
        """What trains runs on a text; `workers` are this machine's."""
        if self.site is None:
            return Noted(executor_for(device, text, store, workers, self.pool), self)
        spread = Spread(
            text_folder=text.folder, runs_folder=store.folder, workers=workers, site=self.site, pool=self.pool
        )
        return Noted(spread, self)

    def elsewhere(self) -> int:
        """The number of workers of other machines that are here now."""
        return 0 if self.site is None else self.site.present()

    def wait_for_expected(self, say: Callable[[str], None]) -> None:
        """Wait for the workers that will join, but not for ever: those that are late take part, and are not planned."""
        if self.site is None or self.elsewhere() >= self.expected:
            return
        say(f"waiting for {count_words(self.expected, 'worker')} of other machines")
        here = self.site.wait_for(self.expected, WAIT_SECONDS)
        if here < self.expected:
            say(f"{here} of {count_words(self.expected, 'worker')} came within {human_seconds(WAIT_SECONDS)}")

    def note(self, event: Event) -> None:
        """Count what ended, and what was lost."""
        if isinstance(event, Ended | Lost):
            before, lost = self.so_far, len(event.group) * isinstance(event, Lost)
            self.so_far = replace(
                before,
                attempts=before.attempts + len(event.group),
                attempts_superseded=before.attempts_superseded + lost,
            )
        if isinstance(event, Ended):
            runs = {host.name: host.runs for host in self.so_far.hosts}
            name = event.host or self.here
            runs[name] = (*runs.get(name, ()), *(task.job.hash[:NAME_DIGITS] for task in event.group))
            hosts = tuple(HostRuns(name=name, runs=tuple(dict.fromkeys(done))) for name, done in runs.items())
            self.so_far = replace(self.so_far, hosts=hosts)


class Noted:
    """An executor whose events are counted."""

    def __init__(self, executor: Executor, machines: Machines) -> None:
        self._executor, self._machines = executor, machines

    def __enter__(self) -> Noted:
        self._executor.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self._executor.__exit__(*reason)

    def submit(self, group: Group, *, first: bool = False) -> None:
        """As the executor's."""
        self._executor.submit(group, first=first)

    def wait(self) -> list[Event]:
        """As the executor's."""
        events = self._executor.wait()
        for event in events:
            self._machines.note(event)
        return events
