"""A study's notebook: what it is bound to, what it has spent over its starts, and whether it lives."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.records.record import write
from sparsedial.records.study import CellCounts, Frozen, Inputs
from sparsedial.runs.clock import Clock
from sparsedial.store import lock
from sparsedial.sweep.layout import lay
from sparsedial.sweep.notebook import Notebook, open_notebook, status
from sparsedial.sweep.question import require_same
from tests.showing.synthetic import study_record
from tests.sweep.simulation import asked
from tests.sweep.test_layout import DRAFT

LAID = replace(DRAFT, cells=lay(DRAFT))
FROZEN = Frozen(inputs=asked().inputs, layout=LAID, profile_digest="0", evaluation_tokens=1 << 16)


class Hand:
    """Time that is moved by hand."""

    def __init__(self, notebook: Notebook) -> None:
        self.now = 0.0
        notebook.clock = Clock(600.0, notebook.spent_seconds, now=lambda: self.now)


def started(out: Path) -> tuple[Notebook, Hand]:
    """A notebook of a folder, laid, with a clock that is moved by hand."""
    notebook = open_notebook(out)
    assert isinstance(notebook, Notebook)
    hand = Hand(notebook)
    if notebook.frozen is None:
        notebook.freeze(FROZEN)
    return notebook, hand


def spent(out: Path) -> dict[str, float]:
    return {phase.name: phase.seconds for phase in open_notebook(out).study.phases}


def test_what_a_phase_took_is_kept_over_starts_however_they_end(tmp_path: Path):
    notebook, hand = started(tmp_path)
    hand.now = 10.0
    notebook.enter("learning rates")
    hand.now = 14.0
    notebook.beat()  # too early to write
    hand.now = 16.0
    notebook.beat()
    hand.now = 19.0  # killed here: three seconds are lost
    assert spent(tmp_path) == {"set-up": 10.0, "learning rates": 6.0}
    again, hand = started(tmp_path)
    assert again.spent_seconds == 16.0
    hand.now = 2.0
    again.enter("learning rates")
    hand.now = 9.0
    again.enter("report")
    assert spent(tmp_path) == {"set-up": 12.0, "learning rates": 13.0}
    assert open_notebook(tmp_path).spent_seconds == 25.0


def test_nothing_is_written_before_a_study_is_laid(tmp_path: Path):
    notebook = Notebook(tmp_path / "study.json")
    hand = Hand(notebook)
    hand.now = 100.0
    notebook.enter("learning rates")
    assert not (tmp_path / "study.json").exists()


def test_status_parts_cells_from_other_runs_and_knows_who_lives(tmp_path: Path):
    notebook, hand = started(tmp_path)
    notebook.enter("learning rates")
    for _ in range(14):
        notebook.ran()
    hand.now = 20.0
    notebook.enter("grid")
    notebook.keep(cells=CellCounts(planned=24, finished=2, diverged=0))
    notebook.ran()
    notebook.ran()
    hand.now = 30.0
    notebook.write()
    os.utime(tmp_path / "study.json", times=(time.time() - 60, time.time() - 60))
    found = status(tmp_path)
    assert (found.status, found.phase) == ("stopped", "grid")
    assert (found.cells_planned, found.cells_finished, found.cells_diverged) == (24, 2, 0)
    assert [phase.runs for phase in found.phases] == [0, 14, 2]
    assert found.written_seconds_ago == pytest.approx(60, abs=10)
    assert found.elapsed_seconds == 30.0
    with lock(tmp_path):
        living = status(tmp_path)
    assert living.status == "running"
    assert living.elapsed_seconds == pytest.approx(90, abs=10)
    write(tmp_path / "study.json", study_record())
    assert status(tmp_path).status == "done"


@pytest.mark.parametrize(
    ("held", "given", "says"),
    [
        ({"time": 600.0}, {"time": 180.0}, "with time=10m, not time=3m"),
        ({"time": 8.64e103}, {"time": 180.0}, "with time=1e+99d, not"),
        ({"max_total_parameters": None}, {"max_total_parameters": 2e4}, "with no max_total_parameters, not"),
        ({"sparsities": (0.0, 0.75)}, {"sparsities": (0.0, 0.875)}, "sparsities=0,0.75, not"),
        ({"probes": 0.08}, {"probes": None}, "with probes=0.08, not no probes"),
        ({"text": "ab12"}, {"text": "cd34"}, "of another text"),
    ],
)
def test_what_differs_is_named(tmp_path: Path, held, given, says):
    one, other = (replace(asked().inputs, **values) for values in (held, given))
    assert isinstance(one, Inputs)
    with pytest.raises(UserError) as error:
        require_same(tmp_path, one, other)
    assert says in error.value.problem
