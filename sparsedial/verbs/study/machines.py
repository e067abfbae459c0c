"""The machines of a study, by its setting `on`: this one alone, or also those whose workers join it."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from msgspec.structs import replace

from sparsedial.records.launch import JOIN_FILE, LaunchKind, LaunchSoFar
from sparsedial.runs.machines.launched import Launched
from sparsedial.runs.machines.machines import Machines
from sparsedial.runs.machines.ray_cluster import on_ray, require_ray
from sparsedial.runs.machines.setup import host_name, setup_here
from sparsedial.runs.machines.slurm import allocation, on_slurm
from sparsedial.sweep.notebook import Notebook
from sparsedial.verbs.study.settings import StudySettings


def require_launcher(settings: StudySettings) -> None:
    """Raises: UserError where nothing can start workers as `on` asks, so that nothing is spent on it."""
    if settings.kind == "slurm" and not settings.dry_run:
        allocation(os.environ)
    elif settings.kind == "ray" and not settings.dry_run:
        require_ray()


@contextlib.contextmanager
def machines_of(settings: StudySettings, notebook: Notebook, note: Callable[[str], None]) -> Iterator[Machines]:
    """The machines until the end of the block; a dry run lets nobody in.

    What they train is counted in the notebook, on top of what earlier starts counted.
    """
    here, before = host_name(), notebook.study and notebook.study.launch
    so_far = before or LaunchSoFar(kind=settings.kind, first=None if notebook.frozen else here)
    machines = Machines(here, replace(so_far, kind=settings.kind))
    notebook.launch = lambda: machines.so_far
    if settings.kind == "local" or settings.dry_run:
        if not settings.dry_run:
            (settings.out / JOIN_FILE).unlink(missing_ok=True)  # of a start that was killed
        yield machines
        return
    from sparsedial.runs.machines.site import Site

    launched: Launched | None = None
    try:
        with Site(settings.out, setup_here(), note) as machines.site:
            launched = LAUNCHERS[settings.kind](settings.out, settings.workers, machines.site.tell)
            machines.expected = launched.expected if settings.wait_for is None else settings.wait_for
            machines.site.admit()  # says what the launcher said
            yield machines
    finally:  # the workers have been sent away
        if launched is not None:
            launched.end()


def _by_hand(folder: Path, workers: int | None, say: Callable[[str], None]) -> Launched:
    """Say what is to be typed on the other machines."""
    path = shlex.quote(str(folder.resolve()))
    say(f"other machines that see this folder join with `sparsedial join {path}`")
    return Launched(expected=0)


LAUNCHERS: Mapping[LaunchKind, Callable[[Path, int | None, Callable[[str], None]], Launched]] = {
    "join": _by_hand,
    "slurm": on_slurm,
    "ray": on_ray,
}
