"""`profile` as a command: measured on tiny shapes, its file read by `plan`, bad values said before any measuring."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparsedial.cli.main import main
from sparsedial.machine.profile import FEATURES
from sparsedial.records.answers import Measured
from sparsedial.records.profile import ProfileFile
from sparsedial.records.record import read
from sparsedial.store import read_json, write_json

WORDS = ["--time", "1", "--batch", "2", "--context", "16", "--widths", "16,32", "--vocab-size", "64", "--threads", "1"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real profile but for the processes that peaks are measured in, which take seconds each to start."""
    from sparsedial.machine.memory import step_bytes
    from sparsedial.runs import timed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            timed, "peak_bytes", lambda shape, batch, context, *_: 3e8 + step_bytes(shape, batch, context).total
        )
        path = tmp_path_factory.mktemp("profile") / "profile.json"
        assert main(["profile", *WORDS, "--out", str(path), "--json"]) == 0
    return path


def test_the_record_is_whole_and_is_what_json_prints(measured, capsys, monkeypatch):
    from sparsedial.machine.memory import step_bytes
    from sparsedial.runs import timed

    monkeypatch.setattr(
        timed, "peak_bytes", lambda shape, batch, context, *_: 3e8 + step_bytes(shape, batch, context).total
    )
    assert main(["profile", *WORDS, "--tune", "--out", str(measured.with_name("again.json")), "--json"]) == 0
    said = capsys.readouterr()
    assert "nothing to tune" in said.err
    assert not measured.with_name("tiles.json").exists()
    printed = json.loads(said.out)
    kept = read_json(measured)
    assert set(printed) == (set(kept) - {"schema_version"}) | {"out"}
    assert set(kept["coefficients"]) == set(FEATURES)
    assert {(row["d_model"], row["experts"]) for row in kept["rows"]} == {
        (width, experts) for width in (16, 32) for experts in (0, 8, 64)
    }
    assert len(kept["memory"]["rows"]) == 2 * 2 * 2  # widths, experts, batches
    assert kept["memory"]["process_bytes"] == pytest.approx(3e8, rel=0.01)


def test_the_table_names_the_file_and_the_next_command(measured, capsys):
    from sparsedial.cli.tables import profile_table

    def table(out: str) -> str:
        return profile_table(Measured(**dict(read(measured, ProfileFile)), out=out))

    said = table(str(measured))
    assert "--device 'a b.json'" in table("a b.json")
    assert f"sparsedial plan --seconds 10d --device {measured}" in said


def test_a_plan_takes_it_as_its_device(measured, capsys):
    assert main(["plan", "--seconds", "10d", "--device", str(measured), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["costs"]["seconds"] == pytest.approx(864_000, rel=1e-3)
    assert "calibrated by 8 runs" in plan["costs"]["memory_source"]


def test_an_older_profile_without_memory_plans_by_counted_bytes_and_says_so(measured, tmp_path, capsys):
    record = read_json(measured)
    del record["memory"]
    write_json(tmp_path / "profile.json", record)
    assert main(["plan", "--seconds", "10d", "--device", str(tmp_path / "profile.json")]) == 0
    assert "`sparsedial profile` calibrates it" in capsys.readouterr().out


def test_a_profile_of_0_watts_plans_without_energy_and_refuses_a_budget_in_joules(measured, tmp_path, capsys):
    """Earlier versions wrote it on machines with a meter."""
    path = tmp_path / "profile.json"
    write_json(path, {**read_json(measured), "watts": 0.0, "metered": True})
    assert main(["plan", "--seconds", "10d", "--device", str(path)]) == 0
    said = capsys.readouterr().out
    assert "unknown: the profile of this machine says 0 W" in said
    assert "0 J" not in said
    assert main(["plan", "--joules", "5kJ", "--device", str(path)]) == 2
    assert capsys.readouterr().err.splitlines()[0] == (
        "error: the profile of this machine says 0 W: its meter was not read"
    )


def test_a_peak_is_measured_in_a_process_of_its_own():
    from sparsedial.runs.timed import peak_bytes
    from sparsedial.shape.ladder import Ladder

    assert 5e7 < peak_bytes(Ladder(vocab_size=64, context=16).shape(16, 8), 2, 16) < 1e10


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        (["--time", "0.5"], "--time: 0.5 is too small", "1 or more"),
        (["--batch", "0"], "--batch: 0 is too small", "1 or more"),
        (["--batch", "1e10"], "of memory", "smaller"),
        (["--context", "4"], "--context: 4 is too small", "8 or more"),
        (["--vocab-size", "1e13"], "of memory", "smaller"),
        (["--widths", "16"], "at least two widths", "like"),
        (["--widths", "16,,32"], "an entry is empty", ""),
        (["--widths", "16,17"], "multiple of 4", ""),
        (["--widths", "16,1e9"], "of memory", "smaller"),
        (["--threads", "0"], "--threads: 0 lies outside", "cores"),
        (["--threads", "1e9"], "lies outside", "cores"),
        (["--device", "tpu"], "no device named 'tpu'", "cpu or cuda"),
        (["--out", "/proc/nowhere/profile.json"], "cannot write /proc/nowhere/profile.json", "--out"),
        (["--out", "/tmp"], "it is a folder", ""),
        (["--out", ""], "file or folder is empty", ""),
    ],
)
def test_bad_values_are_said_before_anything_is_measured(monkeypatch, tmp_path, capsys, words, says, hint):
    from sparsedial.runs import timed

    monkeypatch.setattr(timed, "peak_bytes", lambda *_: pytest.fail("it measured"))
    out = [] if "--out" in words else ["--out", str(tmp_path / "profile.json")]
    assert main(["profile", *words, *out]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert says in said.err
    assert hint in said.err
