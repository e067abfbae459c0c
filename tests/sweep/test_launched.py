"""Which machine trained what of a study, in its record, its table and its report."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sparsedial.cli.tables import table_of
from sparsedial.records.launch import HostRuns, LaunchSoFar
from sparsedial.records.record import read, write
from sparsedial.records.study import Study
from sparsedial.showing.report_tables import text_and_machine
from sparsedial.sweep.grid import cell_tasks
from sparsedial.sweep.launched import launched
from sparsedial.sweep.notebook import Notebook
from tests.showing.synthetic import finished, study_record

SCAN = "f" * 16  # a run that is none of the grid's


@pytest.fixture
def spread():
    """The launch of a study whose first machine trained two cells, another one three and a run beside."""
    lab, findings, running = finished()
    names = [cell_tasks(lab, findings.rates.model, cell)[0].job.hash[:16] for cell in findings.cells]
    hosts = HostRuns(name="a", runs=tuple(names[:2])), HostRuns(name="b", runs=(*names[2:5], SCAN))
    so_far = LaunchSoFar(kind="join", first="a", hosts=hosts, attempts=7, attempts_superseded=1)

    def of(so_far: LaunchSoFar):
        return launched(lab, findings.rates.model, findings.cells, replace(running, launch=so_far))

    return of, so_far


def test_a_machine_has_its_cells_and_only_the_first_one_a_profile(spread):
    of, so_far = spread
    launch = of(so_far)
    assert [(host.name, host.cells, host.runs) for host in launch.hosts] == [("a", 2, 2), ("b", 3, 4)]
    first, second = launch.hosts
    assert first.profile_digest == finished()[2].frozen.profile_digest
    assert first.profile_digest_reason is None
    assert second.profile_digest is None
    assert "no other is measured" in second.profile_digest_reason
    unknown = of(replace(so_far, first=None)).hosts
    assert all(host.profile_digest is None and "earlier version" in host.profile_digest_reason for host in unknown)


def test_several_machines_are_named_in_table_and_report_and_one_is_not(spread, tmp_path):
    of, so_far = spread
    study = replace(study_record(), launch=of(so_far))
    write(tmp_path / "study.json", study)
    assert read(tmp_path / "study.json", Study).launch == study.launch
    said = "a 2 runs, b 4 runs; 1 run went on elsewhere, since a worker was gone"
    assert said in table_of(study.answer)
    assert said in text_and_machine(study)
    alone = replace(study, launch=of(replace(so_far, hosts=so_far.hosts[:1])))
    assert "machines" not in table_of(alone.answer)
    assert text_and_machine(alone) == text_and_machine(study_record())


def test_who_began_a_study_is_written_down_when_it_is_laid():
    """One that is killed before its first run is not taken for an earlier version's."""
    notebook = Notebook(None)
    notebook.launch = lambda: LaunchSoFar(kind="local", first="a")
    notebook.freeze(finished()[2].frozen)
    assert notebook.study is not None
    assert notebook.study.launch == LaunchSoFar(kind="local", first="a")
