"""The machines of a study, by its setting `on`: this one alone, or also those whose workers join it."""

from __future__ import annotations

import contextlib
import shlex
import socket
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from sparsedial.records.launch import LaunchSoFar
from sparsedial.runs.machines import Machines
from sparsedial.sweep.notebook import Notebook
from sparsedial.verbs.study_settings import StudySettings


@contextlib.contextmanager
def machines_of(settings: StudySettings, notebook: Notebook, note: Callable[[str], None]) -> Iterator[Machines]:
    """The machines until the end of the block; a dry run lets nobody in.

    What they train is counted in the notebook, on top of what earlier starts counted.
    """
    here, before = socket.gethostname(), notebook.study and notebook.study.launch
    so_far = before or LaunchSoFar(kind=settings.kind, first=None if notebook.frozen else here)
    machines = Machines(here, replace(so_far, kind=settings.kind))
    notebook.launch = lambda: machines.so_far
    if settings.kind == "local" or settings.dry_run:
        yield machines
        return
    from sparsedial.runs.setup import setup_here
    from sparsedial.runs.site import Site

    with Site(settings.out, setup_here(), note) as machines.site:
        folder = shlex.quote(str(settings.out.resolve()))
        note(f"other machines that see this folder join with `sparsedial join {folder}`")
        yield machines
