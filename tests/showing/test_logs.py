"""Training curves for other programs: what a log holds is what the run's record holds."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.runs import in_process
from sparsedial.showing.logs import file_name, open_log
from tests.verbs.test_train import words


@pytest.fixture
def each_step(monkeypatch) -> None:
    monkeypatch.setattr(in_process, "WAIT_SECONDS", 0.0)


def test_a_csv_log_holds_the_losses_of_the_steps_and_of_the_end(corpus, tmp_path: Path, capsys, each_step):
    assert main(words(corpus, tmp_path, "--tokens", "640", "--log", "csv", "--json")) == 0
    run = json.loads(capsys.readouterr().out)
    steps = [json.loads(line) for line in next(tmp_path.glob("runs/*/metrics.jsonl")).read_text().splitlines()]
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = {int(row["step"]): float(row["loss"]) for row in rows if row["loss"]}
    assert len(shown) == 10
    for step in steps[:-1]:  # the last step is shown again while the run is scored
        assert shown[step["index"] + 1] == pytest.approx(step["loss"], rel=1e-5)
    assert float(rows[-1]["test_loss"]) == pytest.approx(run["test_loss"], rel=1e-5)
    assert {row["run"] for row in rows} == {f"training on 640 tokens, {run['hash'][:8]}"}


def test_runs_of_one_folder_have_a_curve_each(corpus, tmp_path: Path, capsys, each_step):
    for seed in ("0", "1"):
        asked = words(corpus, tmp_path, "--tokens", "640", "--recipe.seed", seed, "--log", "csv", "--json")
        assert main(asked) == 0
    capsys.readouterr()
    curves: dict[str, list[int]] = {}
    with (tmp_path / "log.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["loss"]:
                curves.setdefault(row["run"], []).append(int(row["step"]))
    assert len(curves) == 2
    for steps in curves.values():
        assert steps == sorted(steps)


def test_tensorboard_reads_the_curves(corpus, tmp_path: Path, capsys, each_step):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert main(words(corpus, tmp_path, "--tokens", "640", "--log", "tensorboard", "--json")) == 0
    run = json.loads(capsys.readouterr().out)
    (folder,) = (tmp_path / "tensorboard").iterdir()
    curves = loader.EventAccumulator(str(folder))
    curves.Reload()
    assert [point.step for point in curves.Scalars("loss")][:10] == list(range(1, 11))
    assert curves.Scalars("test_loss")[0].value == pytest.approx(run["test_loss"], rel=1e-5)


def test_wandb_gets_one_run_for_each_of_ours_and_ends_it(tmp_path: Path, monkeypatch):
    seen = []
    run = SimpleNamespace(log=lambda values, step: seen.append((step, values)), finish=lambda: seen.append("end"))
    fake = SimpleNamespace(init=lambda **given: seen.append(given["name"]) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    log = open_log("wandb", tmp_path)
    log.write("dense", 1, {"loss": 2.0})
    log.write("dense", 2, {"loss": 1.5})
    log.close()
    assert seen == ["dense", (1, {"loss": 2.0}), (2, {"loss": 1.5}), "end"]


def test_a_library_that_is_not_installed_is_named_with_its_extra(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="wandb is not installed") as raised:
        open_log("wandb", tmp_path)
    assert raised.value.hint == "pip install 'sparsedial[wandb]'"


def test_an_unknown_log_is_refused_before_anything_is_read(tmp_path: Path, capsys):
    assert main(words("/nowhere", tmp_path / "out", "--tokens", "4k", "--log", "tensorbord")) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --log: no log named 'tensorbord'")
    assert "tensorboard" in said.splitlines()[1]
    assert not (tmp_path / "out").exists()


def test_a_label_makes_a_name_of_a_folder():
    assert file_name("dense, width 48, 2e+11 FLOPs, seed 1") == "dense_width_48_2e+11_FLOPs_seed_1"
