"""Records: read back as they were written, and errors that name the file and the field."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from sparsedial.errors import UserError
from sparsedial.records.grid import LayoutFile
from sparsedial.records.law import LawFile
from sparsedial.records.plan import Plan
from sparsedial.records.quantities import Gap, Interval
from sparsedial.records.record import Record, parse, plain, read, write
from sparsedial.records.run import Run
from sparsedial.records.study import Phase
from sparsedial.store import write_json
from sparsedial.sweep.findings import plan_at_top
from tests.showing.synthetic import finished, study_record
from tests.sweep.simulation import steady, true_law


class Phases(Record, frozen=True, kw_only=True):
    """A record with records in a list, one of whose fields has a default."""

    name: str
    phases: tuple[Phase, ...]


def written(path: Path, record) -> Path:
    """Where a record was written."""
    write(path, record)
    return path


def a_run() -> Run:
    return next(result.run for cell, result in steady().cells.items() if cell.experts)


def changed(path: Path, change) -> Path:
    """A run's file with its values changed."""
    values = plain(a_run())
    change(values)
    write_json(path, values)
    return path


def test_a_record_comes_back_as_it_was(tmp_path):
    assert read(written(tmp_path / "run.json", a_run()), Run) == a_run()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda run: run.pop("seconds"), "lacks the field 'seconds'"),
        (lambda run: run.update(secondz=1.0), "has the unknown field 'secondz'"),
        (lambda run: run.update(seconds="long"), "seconds: expected a number, found text"),
        (lambda run: run["sparsity"].pop("experts"), "lacks the field 'sparsity.experts'"),
        (lambda run: run["shape"].update(witdh=3), "unknown field 'shape.witdh'"),
        (lambda run: run["recipe"].update(steps="many"), "recipe.steps: expected a whole number, found text"),
        (lambda run: run.update(status="lost"), "status"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_with_file_and_field(tmp_path, change, says):
    path = changed(tmp_path / "run.json", change)
    with pytest.raises(UserError) as error:
        read(path, Run)
    assert str(path) in error.value.problem
    assert says in error.value.problem


def test_a_value_is_found_by_its_key_as_in_json():
    gap = Gap(mean=0.1, low=0.0, high=0.2)
    assert gap["mean"] == 0.1
    assert dict(gap) == {"mean": 0.1, "low": 0.0, "high": 0.2}
    with pytest.raises(KeyError):
        gap["median"]


def test_what_is_no_number_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write(tmp_path / "a.json", Interval(mean=math.nan, low=None, high=None))
    assert not (tmp_path / "a.json").exists()


def test_a_file_says_its_schema(tmp_path):
    assert json.loads(written(tmp_path / "run.json", a_run()).read_text())["schema_version"] == 1


@pytest.mark.parametrize("key", ["held_out", "source", "fitted_range"])
def test_a_default_serves_construction_and_no_file_that_lacks_the_field(tmp_path, key):
    values = plain(true_law())
    del values[key]
    write_json(tmp_path / "law.json", values)
    with pytest.raises(UserError, match=f"law.json: lacks the field '{key}'"):
        read(tmp_path / "law.json", LawFile)


@pytest.mark.parametrize(
    ("names", "field"),
    [(("crossover", "searched"), "crossover.searched"), (("recipe", "seed"), "recipe.seed"), (("costs",), "costs")],
)
def test_a_field_is_missed_however_deep_it_lies(tmp_path, names, field):
    lab, findings, _ = finished()
    values = plain(plan_at_top(lab, findings))
    *above, last = names
    inner = values
    for name in above:
        inner = inner[name]
    del inner[last]
    write_json(tmp_path / "plan.json", values)
    with pytest.raises(UserError, match=f"plan.json: lacks the field '{field}'"):
        read(tmp_path / "plan.json", Plan)


def test_a_field_is_missed_in_a_list():
    values = plain(study_record().frozen.layout)
    del values["cells"][3]["experts"]
    with pytest.raises(UserError, match=r"lacks the field 'cells\[3\]\.experts'"):
        parse(values, LayoutFile, "study.json")
    values = {"name": "near", "phases": [{"name": "grid", "seconds": 1.0}]}
    with pytest.raises(UserError, match=r"lacks the field 'phases\[0\]\.runs'"):
        parse(values, Phases, "study.json")


def test_a_shape_may_leave_out_what_it_has_by_default():
    run = a_run()
    values = plain(run)
    del values["shape"]["logit_cap"]
    assert parse(values, Run, "run.json") == run
