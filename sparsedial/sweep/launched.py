"""Which machine trained which cells of a study."""

from __future__ import annotations

from sparsedial.records.grid import RateModel
from sparsedial.records.launch import HostRuns, Launch, LaunchHost
from sparsedial.records.study import RunningStudy
from sparsedial.runs.machines.machines import NAME_DIGITS
from sparsedial.sweep.cells import Cells
from sparsedial.sweep.grid import cell_tasks
from sparsedial.sweep.lab import Lab

ONE_MEASURED = "timed runs are on the first machine alone, so no other is measured"
NOT_KNOWN = "an earlier version began the study, and did not write down where"


def launched(lab: Lab, rates: RateModel, cells: Cells, running: RunningStudy) -> Launch | None:
    """The machines of a study, in the order in which they first trained a run; None where nobody counted."""
    so_far = running.launch
    if so_far is None:
        return None
    names = [{task.job.hash[:NAME_DIGITS] for task in cell_tasks(lab, rates, cell)} for cell in cells]
    digest = running.frozen.profile_digest

    def of(host: HostRuns) -> LaunchHost:
        measured = host.name == so_far.first
        return LaunchHost(
            name=host.name,
            profile_digest=digest if measured else None,
            profile_digest_reason=None if measured else ONE_MEASURED if so_far.first else NOT_KNOWN,
            cells=sum(not cell.isdisjoint(host.runs) for cell in names),
            runs=len(host.runs),
        )

    return Launch(
        kind=so_far.kind,
        hosts=tuple(map(of, so_far.hosts)),
        attempts=so_far.attempts,
        attempts_superseded=so_far.attempts_superseded,
    )
