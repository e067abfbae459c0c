"""`plan` as a command: fast, without torch, in any currency, and its files are read by other verbs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.law.forms import FORMS
from sparsedial.law.law import Law
from sparsedial.law.literature import published
from sparsedial.records.record import plain
from sparsedial.shape.config import read_config
from sparsedial.shape.counts import total_parameters
from sparsedial.store import write_json
from sparsedial.verbs.plan.plan import PlanSettings, plan

KEYS = {
    "budget", "law", "shape", "tokens", "total_parameters", "active_parameters", "sparsity", "predicted_loss", "costs",
    "dense_rival", "crossover", "binding_constraints", "near_optimal", "other_laws", "warnings",
}  # fmt: skip


def planned(capsys, *words: str) -> dict:
    assert main(["plan", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_record_has_the_promised_keys(capsys):
    plan = planned(capsys, "--flops", "1e21", "--max-total-parameters", "30B")
    assert set(plan) >= KEYS
    assert {"flops", "seconds", "joules", "dollars", "memory_bytes"} <= set(plan["costs"])
    assert plan["candidates"] >= 10_000


@pytest.mark.parametrize("law", ["chinchilla/hoffmann", "clark/hash", "krajewski", "ludziejewski", "zhao"])
def test_every_law_plans_and_its_table_is_printed(capsys, law):
    assert main(["plan", "--flops", "3e20", "--law", law, "--device", "a100", "--price", "1.5"]) == 0
    said = capsys.readouterr().out
    assert law in said
    assert "note" in said


def test_planning_loads_neither_torch_nor_scipy():
    code = (
        "import sys, sparsedial; sparsedial.plan(flops=1e20); "
        "assert not {'torch', 'scipy', 'matplotlib', 'polars'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_exported_holds_the_plans_shape(tmp_path: Path):
    plan = sparsedial.plan(flops=1e20, out=tmp_path / "plan.json", export=tmp_path / "out")
    assert total_parameters(read_config(tmp_path / "out" / "config.json")) == plan["total_parameters"]
    assert "--num-layers" in (tmp_path / "out" / "megatron.args").read_text()
    assert json.loads((tmp_path / "plan.json").read_text())["tokens"] == plan["tokens"]


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"a": 1}, "has the unknown field 'a'"),
        ({"form": "abnr"}, "no form named 'abnr'"),
        ({"coefficients": {}}, "its coefficients are not those of abnar"),
        ({"samples": [[1.0]]}, "its coefficients are not those of abnar"),
        (
            {"coefficients": dict.fromkeys(FORMS["abnar"].coefficients, "x")},
            r"expected a number, found text",
        ),
    ],
)
def test_a_file_that_is_no_law_of_ours_is_named(tmp_path: Path, record, says):
    law = published("abnar")
    assert isinstance(law, Law)
    write_json(tmp_path / "law.json", record if "a" in record else {**plain(law), **record})
    for law in (tmp_path / "law.json", tmp_path):
        with pytest.raises(UserError, match=says):
            sparsedial.plan(flops=1e20, law=str(law))
    (tmp_path / "law.json").write_text((tmp_path / "law.json").read_text()[:-20])
    with pytest.raises(UserError, match="not readable as JSON"):
        sparsedial.plan(flops=1e20, law=str(tmp_path))


def test_a_folder_whose_study_has_no_grid_is_said(tmp_path: Path):
    law = published("abnar")
    assert isinstance(law, Law)
    write_json(tmp_path / "law.json", plain(law))
    write_json(tmp_path / "study.json", {"status": "started"})
    with pytest.raises(UserError, match=r"study\.json"):
        sparsedial.plan(flops=1e20, law=str(tmp_path))


def test_gpu_hours_are_seconds_on_all_devices_together():
    one = sparsedial.plan(gpu_hours=800, device="h100", devices=8)
    other = sparsedial.plan(seconds="100h", device="h100", devices=8)
    assert one.shape == other.shape
    assert one.tokens == other.tokens


@pytest.mark.parametrize(("field", "value", "own"), [("vocab_size", 512, 256), ("context", 4096, 128)])
def test_a_studys_law_is_not_asked_about_another_vocabulary_or_context(field: str, value: int, own: int):
    study = Path(__file__).parents[2] / "benchmarks" / "records" / "reference_study"
    with pytest.raises(UserError, match=f"{value:,} is not what this study's models have, {own}") as refused:
        plan(PlanSettings(flops=1e12, law=str(study), **{field: value}))
    assert refused.value.field == field
    assert getattr(plan(PlanSettings(flops=1e12, law=str(study), **{field: own})).shape, field) == own
