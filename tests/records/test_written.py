"""Every file and every `--json` answer, as a command or a simulated study really writes it, is one of our records."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from sparsedial.cli.main import main
from sparsedial.law.law import read_law
from sparsedial.machine.memory import step_bytes
from sparsedial.machine.profile import Profile, read_profile
from sparsedial.machine.timing import summarise
from sparsedial.records.answers import Counts, Generation, Measured, Served, Trained, TrainSettingsFile
from sparsedial.records.dial import PageDial, PageRace, PageStart
from sparsedial.records.dry_run import StudyDryRun, TrainDryRun
from sparsedial.records.evaluation import Evaluation
from sparsedial.records.law import Fit, Forms, LawFile
from sparsedial.records.plan import Plan
from sparsedial.records.profile import ProfileFile
from sparsedial.records.quantities import Sparsity
from sparsedial.records.record import plain, read, read_lines, write
from sparsedial.records.run import Metric, Run
from sparsedial.records.setting import Setting
from sparsedial.records.study import RunningStudy, Study, StudyAnswer, StudyStatus, read_study
from sparsedial.runs import costs, timed
from sparsedial.shape.ladder import Ladder
from sparsedial.sweep.expect import dry_run
from sparsedial.sweep.findings import plan_at_top
from sparsedial.verbs.dial.questions import questions
from tests.records.held import of_file, of_values
from tests.showing.synthetic import bare_record, finished, study_record
from tests.verbs.test_fit import write as write_table
from tests.verbs.test_train import words as training

PLANNED = ["plan", "--flops", "1e20", "--max-total-parameters", "3B"]
ON_A_DEVICE = [*PLANNED, "--device", "h100", "--price", "2"]
STATE = {"flops": "1e20", "max_total_parameters": "3B", "device": "h100", "price": "2"}


def answered(*words: str | Path) -> Any:
    """What a command prints with `--json`."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*map(str, words), "--json"]) == 0
    return json.loads(out.getvalue())


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of two tiny runs of a sparse model that share their beginning; and what `train` said."""
    out = tmp_path_factory.mktemp("train")
    sparse = ["--shape.experts", "4", "--shape.top_k", "1", "--shape.d_expert", "16"]
    return out, answered(*training(corpus, out, "--tokens", "4k", "--branches", "2k", *sparse))


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a study leaves but for its runs and its report."""
    out = tmp_path_factory.mktemp("study")
    lab, findings, _ = finished()
    law, plan = findings.law.law, plan_at_top(lab, findings)
    assert law is not None
    assert plan is not None
    for name, record in (("study", study_record()), ("law", law), ("plan", plan), ("profile", lab.profile)):
        write(out / f"{name}.json", record)
    return out


def test_the_files_of_a_study(study_folder):
    study = of_file(study_folder / "study.json", Study)
    assert read_study(study_folder / "study.json") == study
    law = of_file(study_folder / "law.json", LawFile)
    assert law.held_out is not None
    assert plain(read_law(study_folder / "law.json")) == plain(law)
    assert of_file(study_folder / "plan.json", Plan).crossover is not None
    of_file(study_folder / "profile.json", ProfileFile)
    assert isinstance(read_profile(study_folder / "profile.json"), Profile)


def test_a_study_without_a_law_and_one_under_way(tmp_path):
    for name, study, cls in (("bare", bare_record(), Study), ("running", finished()[2], RunningStudy)):
        write(tmp_path / f"{name}.json", study)
        assert plain(of_file(tmp_path / f"{name}.json", cls)) == plain(study)


def test_what_a_finished_study_answers(study_folder):
    asked = ["--time", "4000", "--sparsities", "0,0.5,0.75,0.875,0.9375", "--batch", "8", "--device", "cpu"]
    asked += ["--probes", "8%", "--optimizers", "adamw"]
    printed = answered("study", "--out", study_folder, *asked)
    assert of_values(printed, StudyAnswer) == study_record().answer
    of_values(plain(bare_record().answer), StudyAnswer)


def test_the_status_and_the_dry_run_of_a_study(study_folder):
    assert of_values(answered("study", "--out", study_folder, "--status"), StudyStatus).status == "done"
    assert of_values(plain(dry_run(finished()[0], 10.0, 20.0)), StudyDryRun).dollars_reason


def test_a_study_that_stopped_says_its_status(tmp_path):
    write(tmp_path / "study.json", finished()[2])
    assert of_values(answered("study", "--out", tmp_path, "--status"), StudyStatus).status == "stopped"


def test_a_plan_as_printed_and_as_kept(tmp_path):
    kept = ["--out", tmp_path / "plan.json", "--export", tmp_path / "out"]
    plan = of_values(answered(*ON_A_DEVICE, *kept), Plan)
    assert plan.exported
    assert of_file(tmp_path / "plan.json", Plan).costs == plan.costs
    assert of_file(tmp_path / "out" / "plan.json", Plan).costs == plan.costs


@pytest.mark.parametrize("law", ["chinchilla/hoffmann", "krajewski", "ludziejewski"])
def test_a_plan_by_any_law_says_why_something_is_not_known(law):
    plan = of_values(answered(*PLANNED, "--law", law), Plan)
    assert plan.costs.seconds_reason == "no machine was named"
    assert plan.predicted_loss.interval_reason


def test_the_plan_of_a_study_and_one_by_its_law_have_the_same_keys(study_folder):
    asked = answered("plan", "--seconds", "60", "--law", study_folder)
    assert list(plain(read(study_folder / "plan.json", Plan))) == list(plain(of_values(asked, Plan)))


def test_a_count():
    of_values(answered("count", "deepseek-v3", "--with-mtp"), Counts)


def test_a_fit_as_printed_and_as_kept(tmp_path):
    fit = ["fit", write_table(tmp_path), "--form", "chinchilla", "--bootstrap", "20"]
    printed = of_values(answered(*fit, "--out", tmp_path / "law.json"), Fit)
    assert of_file(tmp_path / "law.json", LawFile).held_out == printed.held_out
    assert printed.held_out is not None
    of_values(answered(*PLANNED, "--law", tmp_path / "law.json"), Plan)


def test_a_fit_that_refuses_says_why(tmp_path):
    few = ["fit", write_table(tmp_path), "--form", "chinchilla", "--where", "flops < 2e11"]
    fit = of_values(answered(*few), Fit)
    assert fit.refused
    assert fit.held_out_reason == "there is no law to check"


def test_a_fit_that_is_not_checked_says_why(tmp_path):
    fit = ["fit", write_table(tmp_path, flops=None), "--form", "chinchilla", "--bootstrap", "0"]
    printed = of_values(answered(*fit, "--out", tmp_path / "law.json"), Fit)
    assert "no column 'flops'" in str(printed.held_out_reason)
    assert of_file(tmp_path / "law.json", LawFile).held_out_reason == printed.held_out_reason


def test_the_forms():
    of_values(answered("fit", "--list-forms"), Forms)


def test_the_files_of_a_training(trained):
    out, printed = trained
    assert of_values(printed, Trained).branches
    of_file(out / "settings.json", TrainSettingsFile)
    files = list(out.glob("runs/*/run.json"))
    assert len(files) == 2
    for folder in (file.parent for file in files):
        assert of_file(folder / "run.json", Run).expert_load is not None
        written = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert read_lines(folder / "metrics.jsonl", Metric) == [of_values(line, Metric) for line in written]
        assert any(line["max_over_mean"] is not None for line in written)


def test_what_is_said_of_a_checkpoint(trained, corpus):
    checkpoint = trained[0] / "checkpoint"
    of_values(answered("evaluate", checkpoint, "--text", corpus / "00.txt"), Evaluation)
    of_values(answered("generate", checkpoint, "lo", "--tokens", "3"), Generation)


def test_the_dry_run_of_a_training(corpus, tmp_path, monkeypatch):
    asked = training(corpus, tmp_path, "--tokens", "4k", "--dry-run")
    with monkeypatch.context() as patch:
        patch.setattr(costs, "device_bytes", lambda device: 1.0)
        assert of_values(answered(*asked), TrainDryRun).seconds is None
    monkeypatch.setattr(costs, "step_by", lambda *_: None)
    monkeypatch.setattr(costs, "peak_by", lambda *_: (1e9, 2e8))
    monkeypatch.setattr(costs, "measure_in_turn", lambda calls, **_: {name: summarise([0.01]) for name in calls})
    assert of_values(answered(*asked), TrainDryRun).seconds is not None


def test_a_profile_as_printed_and_as_kept(tmp_path, monkeypatch):
    def peak(shape, batch, context, *_):
        return 3e8 + step_bytes(shape, batch, context).total

    monkeypatch.setattr(timed, "peak_bytes", peak)
    sizes = ["--time", "1", "--batch", "2", "--context", "16", "--widths", "8,16", "--vocab-size", "64"]
    printed = answered("profile", *sizes, "--threads", "1", "--out", tmp_path / "profile.json")
    kept = of_file(tmp_path / "profile.json", ProfileFile)
    assert kept.memory is not None
    assert plain(of_values(printed, Measured)) == {**plain(kept), "out": str(tmp_path / "profile.json")}


def test_a_plan_on_a_profile(study_folder):
    plan = of_values(answered("plan", "--seconds", "1h", "--device", study_folder / "profile.json"), Plan)
    assert plan.costs.seconds_reason is None


def test_what_the_dial_page_is_answered():
    asks = questions("abnar")
    for name, cls in (("start", PageStart), ("dial", PageDial), ("crossover", PageRace), ("plan", Plan)):
        of_values(plain(asks[name](STATE)), cls)
    assert of_values(plain(asks["crossover"]({"target_loss": "2.5"})), PageRace).crossover_reason
    of_values(plain(Served()), Served)


@pytest.mark.parametrize("top_k", [1, (1, 2, 2), None])
def test_a_setting_of_the_dial(top_k):
    setting = Setting(
        name="half",
        top_k_experts=top_k,
        top_p_experts=None,
        skip_layers=(),
        sparsity=Sparsity.of(Ladder(vocab_size=256, context=64).shape(64, 8)),
        active_parameters=1000,
    )
    assert of_values(json.loads(json.dumps(plain(setting))), Setting) == setting
