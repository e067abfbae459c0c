"""The GPU's benchmark, rehearsed at toy sizes: every section measures, and none takes another along."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="installed without Triton")

from benchmarks import gpu, gpu_sections, gpu_ways, side_by_side
from benchmarks.gpu import SECTIONS, append, chosen, lines, run
from benchmarks.gpu_sections import Place

HERE = Place("cpu", quick=True)
SPARE = {"small", "at_once", "compiled", "profile", "liger", "long_study"}
WITH_PROCESSES = ("tests", "study", "long_study")  # of their own, which take seconds to begin


class Together:
    """Stands for a process; it begins when the other has begun."""

    barrier = threading.Barrier(2)

    def __init__(self, make, threads: int) -> None:
        self.barrier.wait(timeout=5)
        self.finish = make()

    def __enter__(self):
        return self

    def __exit__(self, *reason) -> None:
        """Nothing to end."""

    def begin(self) -> None:
        """The step is taken when it is waited for."""


def test_a_process_of_a_machine_without_transformers_takes_its_steps(monkeypatch):
    """As one with a card that has no more than a checkout needs."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    done: list[int] = []
    asked = [EOFError(), True]

    def recv():
        if isinstance(asked[-1], Exception):
            raise asked[-1]
        return asked.pop()

    side_by_side._serve(lambda: lambda: done.append(1), 1, SimpleNamespace(send=lambda _: None, recv=recv))
    assert done == [1]


@pytest.mark.parametrize("name", [name for name in SECTIONS if name not in WITH_PROCESSES])
def test_a_section_finds_figures(monkeypatch, name):
    monkeypatch.setattr(gpu_ways, "Apart", Together)
    figures = dict(SECTIONS[name].measure(HERE))
    assert len(figures) >= 1
    json.dumps(figures)
    named = {word for word in SECTIONS[name].predicted if name != "layer"}
    if name in ("small", "replay"):
        sizes = {word.replace("32", "16") for word in named if word.startswith("sparse")}
        named = {*sizes, "streams_2_times_one"} if name == "replay" else sizes
    if name == "at_once":
        named = {word.replace("8", "2") for word in named}
    assert named <= set(figures)


def test_a_rehearsal_prints_two_lines_for_each_section_and_writes_nothing():
    root, records = Path(__file__).parents[1], set(gpu.RECORDS.iterdir())
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--sections", "1"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert len(said) == 2
    assert said[0].startswith("card: done in ")
    assert said[1].startswith("  copy_gb_per_second ")
    assert set(gpu.RECORDS.iterdir()) == records


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_section_that_fails_says_why_and_keeps_what_it_found():
    code = "print('{\"copy_gb_per_second\": 3.5}', flush=True); raise ValueError('no card')"
    row = run("card", 60, HERE, python(code))
    assert (row["status"], row["figures"]) == ("failed", {"copy_gb_per_second": 3.5})
    assert lines(row)[0].endswith("ValueError: no card")
    assert lines(row)[1] == "  copy_gb_per_second 3.5"


def test_what_pytorch_names_is_no_launch():
    """It calls each optimizer's step by a name, which lies over the step's launches."""

    def call() -> None:
        with torch.profiler.record_function("a name"):
            torch.ones(3).add(1)

    names = {name for name, _, _ in gpu_sections._profiled(HERE, call)}
    assert "aten::add" in names
    assert "a name" not in names


def test_a_study_that_ends_gives_its_cells_budgets_phases_and_seeds(monkeypatch):
    stored = (gpu.RECORDS / "reference_study" / "study.json").read_text()

    def ends(command, **_):
        folder = Path(command[command.index("--out") + 1])
        (folder / "profile.json").write_text('{"at_once": [], "rows": []}')
        (folder / "study.json").write_text(stored)
        return SimpleNamespace(
            returncode=0, stdout=stored, stderr="4 runs at once\nUserWarning: steps are not replayed\n"
        )

    monkeypatch.setattr(gpu_sections.subprocess, "run", ends)
    figures = dict(SECTIONS["study"].measure(HERE))
    json.dumps(figures)
    assert figures["accepted"] == 1
    assert figures["said_at_once"] == ["4 runs at once"]
    assert figures["warnings"] == ["UserWarning: steps are not replayed"]
    assert {phase["name"] for phase in figures["phases"]} >= {"verdict"}
    assert figures["verdict_seeds"]["flops"] >= 3


def test_a_study_that_is_late_gives_what_it_measured_and_said(monkeypatch):
    """The section's own end would leave nothing of it."""

    def goes_on(command, *, timeout, **_):
        assert timeout < SECTIONS["study"].seconds
        folder = Path(command[command.index("--out") + 1])
        (folder / "runs" / "one").mkdir(parents=True)
        (folder / "runs" / "one" / "run.json").touch()
        (folder / "profile.json").write_text(profile)
        raise subprocess.TimeoutExpired(command, timeout, None, b"8 runs at once\nthe machine is 9 times slower")

    profile = (gpu.RECORDS / "reference_study" / "profile.json").read_text()
    monkeypatch.setattr(gpu_sections.subprocess, "run", goes_on)
    figures = dict(SECTIONS["study"].measure(HERE))
    json.dumps(figures)
    assert (figures["accepted"], figures["runs_ended"]) == (0, 1)
    assert figures["late"].endswith("the machine is 9 times slower")
    assert figures["steps"][0]["median_seconds"] > 0
    assert figures["said_at_once"] == ["8 runs at once"]


@pytest.mark.parametrize("name", ["replay", "at_once"])
def test_what_a_section_times_at_full_size_leaves_room_within_its_limit(monkeypatch, name):
    """For imports, compilers, captures and the steps that are not timed."""
    timed = []

    def seconds(self, calls, full_seconds=1.0):
        timed.append(gpu_sections.ROUNDS * full_seconds * len(calls))
        return dict.fromkeys(calls, 1.0)

    monkeypatch.setattr(Place, "seconds", seconds)
    monkeypatch.setattr(Place, "ready", lambda *_: 0.0)
    made, steps = SimpleNamespace(captured=1), [SimpleNamespace(loss=1.0)] * 2
    for owner, what, gives in (
        (gpu_sections, "replayed_by", made),
        (gpu_sections, "step_by", made),
        (gpu_sections, "_steps_of", steps),
        (gpu_sections, "_host_seconds", 1.0),
        (gpu_ways, "_small", made),
        (gpu_ways, "take_all", None),
        (gpu_ways, "_processes", ()),
    ):
        monkeypatch.setattr(owner, what, lambda *_, gives=gives: gives)
    assert dict(SECTIONS[name].measure(Place("cpu", quick=False)))
    assert sum(timed) < SECTIONS[name].seconds / 2


def test_steps_on_a_card_are_tested_before_kernels():
    """The time may end among these."""
    folders = [Path(file).parts[1] for file in gpu_sections.files_with_gpu_tests()]
    assert {*folders} >= {"runs", "training", "kernels"}
    assert folders == sorted(folders, key="kernels".__eq__)


def test_what_a_section_that_ends_well_has_warned_of_is_kept_and_said():
    row = run(
        "card", 60, HERE, python("import sys; print('{\"a\": 1}'); print('not captured: why\\n', file=sys.stderr)")
    )
    assert (row["status"], row["reason"], row["said"].strip()) == ("done", None, "not captured: why")
    assert lines(row)[0].endswith(": not captured: why")


def test_a_section_that_overruns_is_ended_with_the_processes_that_it_started(tmp_path):
    inner = f"import time, pathlib; time.sleep(5); pathlib.Path({str(tmp_path / 'late')!r}).touch()"
    begin = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    row = run("card", 4.0, HERE, python("print('{\"a\": 1}', flush=True); " + begin))
    assert (row["status"], row["figures"]) == ("overran", {"a": 1})
    time.sleep(6)
    assert not (tmp_path / "late").exists()


def test_a_prediction_stands_beside_its_measurement_and_the_line_is_kept(tmp_path):
    row = run("step", 60, Place("cpu", quick=False), python("print('{\"tax_8k\": 1.4}')"))
    assert lines(row)[1] == "  tax_8k 1.4 (predicted 1.5)"
    for _ in range(2):
        append(tmp_path / "gpu.jsonl", row)
    assert [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()] == [row, row]


def test_lines_of_others_and_one_that_is_cut_short_are_no_figures():
    code = "print('{not ours}'); print('{\"a\": 1}'); print('{\"b\": [1, 2'); print('\\udcff')"
    row = run("card", 60, HERE, python("import sys; sys.stdout.reconfigure(errors='surrogateescape'); " + code))
    assert (row["status"], row["figures"]) == ("done", {"a": 1})


def test_the_budget_holds_and_a_study_keeps_its_time(monkeypatch, tmp_path, capsys):
    """However long the sections before it take."""
    now, given = [0.0], dict[str, float]()

    def ended(command, limit, *_):
        name = command[command.index("--one") + 1]
        given[name] = float(command[command.index("--limit") + 1])
        assert given[name] == limit
        now[0] += limit + 0.5  # to end it
        return "overran"

    monkeypatch.setattr(gpu, "_ended", ended)
    monkeypatch.setattr(gpu, "age", lambda: now[0])
    monkeypatch.setattr(gpu, "record_of", lambda _: tmp_path / "gpu_card.jsonl")
    for budget in (420.0, 100.0):
        now[0] = 0.0
        given.clear()
        monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--budget", f"{budget:g}s"])
        gpu.main()
        assert now[0] <= budget + 0.5
        assert ("study" in given) == (budget == 420.0)
        assert len(given) >= 5
    assert "study: left out in 0.0 s" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "gpu_card.jsonl").read_text().splitlines()]
    assert {row["status"] for row in rows if "status" in row} == {"overran", "left out"}
    assert not list(tmp_path.glob("*.part"))


def test_a_study_ends_before_its_section_does(monkeypatch):
    asked = []

    def study(command, *, timeout, **_):
        asked.append(timeout)
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(gpu_sections.subprocess, "run", study)
    for limit in (SECTIONS["study"].seconds, 150.0):
        assert dict(SECTIONS["study"].measure(Place("cpu", quick=True, limit=limit)))["accepted"] == 0
    assert asked == [pytest.approx(165.0), 142.0]


def test_what_a_section_had_found_when_all_was_ended_is_kept(monkeypatch, tmp_path):
    """By a signal at once, by `kill -9` at the next start; and the section's own processes end."""
    record = tmp_path / "gpu_card.jsonl"
    part, wait, begun = tmp_path / "gpu_card.card.part", subprocess.Popen.wait, []

    def ended_while_waiting(child, timeout=None):
        if timeout is None:
            return wait(child)
        begun.append(child)
        while not part.read_text().endswith("\n"):
            time.sleep(0.01)
        raise SystemExit(1)

    monkeypatch.setattr(subprocess.Popen, "wait", ended_while_waiting)
    code = "print('{\"a\": 1}', flush=True); import time; time.sleep(60)"
    row = run("card", 60, HERE, python(code), record)
    assert (row["status"], row["figures"]) == ("stopped", {"a": 1})
    assert begun[0].returncode == -signal.SIGKILL
    gpu.recover(record)
    (kept,) = map(json.loads, record.read_text().splitlines())
    assert (kept["section"], kept["status"], kept["figures"]) == ("card", "killed", {"a": 1})
    assert not part.exists()


@pytest.mark.parametrize(("budget", "left_out"), [(420.0, SPARE), (1500.0, set())])
def test_a_budget_without_room_for_all_leaves_the_spare_sections_out(budget, left_out):
    assert set(SECTIONS) - set(chosen([], budget)) == left_out
    assert chosen(["study", "card"], budget) == ["card", "study"]
