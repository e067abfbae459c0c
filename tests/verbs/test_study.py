"""A whole study at a reduced size: stopped, killed, taken up again, and everything that hangs on its folder."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from benchmarks.replay import RECORD, Stored
from sparsedial.cli.arguments import read_arguments
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.records.launch import JOIN_FILE
from sparsedial.records.record import read, write
from sparsedial.records.run import RUN_FILE, Run
from sparsedial.records.study import Study, read_finished
from sparsedial.verbs import VERBS
from sparsedial.verbs.dial.questions import questions
from sparsedial.verbs.following import following
from sparsedial.verbs.origin import law_behind
from sparsedial.verbs.study.study import StudySettings
from tests.records.held import of_file
from tests.showing.synthetic import study_record
from tests.started import joining
from tests.verbs.whole_study import (
    PATIENCE,
    SIZES,
    cells,
    stamps,
    start,
    wait_for_door,
    wait_for_host,
    wait_for_runs,
    without_cells,
)

pytestmark = pytest.mark.slow

KEYS = {
    "best", "cells", "budgets_flops", "sparsities", "text", "machine", "versions", "wall_seconds", "law", "verdict",
    "near_optimal", "binding_constraints", "crossover", "crossover_reason", "probes", "selection", "launch",
    "token_selection", "next", "report",
}  # fmt: skip


def test_the_result_has_the_promised_keys_and_files(finished):
    out, result = finished
    assert set(result) == KEYS
    assert result["cells"]["planned"] == 12
    assert result["cells"]["finished"] >= 12
    for name in ("report.html", "study.json", "profile.json"):
        assert (out / name).stat().st_size > 1000
    assert list(out.glob("figures/*.png"))
    assert list(out.glob("figures/*.svg"))
    for verdict in result["verdict"].values():
        assert verdict["winner"] in ("sparse", "dense", "undecided")
        assert verdict["reason"]


def test_an_interrupted_study_trains_the_same_runs_to_the_same_losses(finished, corpus: Path):
    out, _ = finished
    anew = out.parent / "anew"
    whole = start(corpus, anew)
    wait_for_runs(anew, 14, whole)
    whole.send_signal(signal.SIGINT)
    whole.communicate()
    for path in anew.glob("runs/*/run.json"):
        records = [json.loads((folder / "runs" / path.parent.name / "run.json").read_text()) for folder in (out, anew)]
        assert records[0]["validation_loss"] == records[1]["validation_loss"]


def test_the_same_command_again_only_prints(finished, corpus: Path, capsys):
    out, result = finished
    before = stamps(out)
    assert main(["study", str(corpus), *SIZES, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == result
    assert stamps(out) == before


def test_another_study_in_the_same_folder_is_refused(finished, corpus: Path, capsys):
    out, _ = finished
    assert main(["study", str(corpus), *SIZES, "--context", "32", "--out", str(out)]) == 2
    assert "given twice" in capsys.readouterr().err
    other = [*SIZES]
    other[other.index("--seeds") + 1] = "3"
    assert main(["study", str(corpus), *other, "--out", str(out)]) == 2
    assert "with seeds=2, not seeds=3" in capsys.readouterr().err


def test_more_workers_than_cores_are_refused(corpus: Path, tmp_path: Path, capsys):
    command = ["study", str(corpus), *SIZES, "--device", "cpu", "--workers", "4096", "--out", str(tmp_path / "many")]
    assert main(command) == 2
    assert "would have to share" in capsys.readouterr().err


def test_its_status_is_told(finished, capsys):
    out, _ = finished
    assert main(["study", "--out", str(out), "--status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["status"] == "done"
    assert status["runs_finished"] == len(stamps(out))


def test_the_report_stands_alone_and_names_what_it_found(finished):
    out, result = finished
    page = (out / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script src" not in page
    assert result["text"]["digest"][:12] in page.replace("<wbr>", "")


def test_its_table_can_be_fitted_again(finished, capsys):
    out, _ = finished
    assert main(["fit", str(out), "--form", "chinchilla_sparsity", "--bootstrap", "20", "--json"]) == 0
    law = json.loads(capsys.readouterr().out)
    assert law["refused"] or law["runs"] >= 12


def test_a_study_with_probes_scores_every_cell(finished):
    out, printed = finished
    study = of_file(out / "study.json", Study)
    assert study.probes is not None
    assert study.frozen.inputs.probes == study.probes.share == printed["probes"]["share"] == 0.08
    assert {cell.run for cell in study.probes.cells} == {row.hash for row in study.cells_table}
    for cell in study.probes.cells:
        run = read(out / "runs" / cell.run[:16] / "run.json", Run)
        assert (run.probes, run.validation_loss, run.sparsity.experts) == (cell.probes, cell.loss, cell.sparsity)
        assert {"sums_1_digit_seen", "sums_1_digit_kept_out"} <= set(cell.probes["arithmetic"])
        assert list(cell.probes["reading"]) == ["code_of_two_letters"]  # longer passages do not fit a context of 16


def test_its_report_says_what_the_probes_found(finished):
    out, printed = finished
    study = read(out / "study.json", Study)
    assert study.probes is not None
    page = (out / "report.html").read_text()
    assert "Arithmetic, facts and reading" in page
    assert (out / "figures" / "probes.png").exists()
    assert study.probes.facts_at_equal_loss.sentence.split(",")[0] in page
    assert "--probes 0.08" in printed["next"]


def test_a_study_without_probes_is_another_one(finished, corpus: Path, capsys):
    out, printed = finished
    words = ["study", str(corpus), *SIZES, "--out", str(out), "--json"]
    assert main(words) == 0  # a finished study only prints
    assert json.loads(capsys.readouterr().out) == printed
    assert main([word for word in words if word not in ("--probes", "8%")]) == 2
    assert "holds a study with probes=0.08, not no probes" in capsys.readouterr().err


def test_a_whole_study_crosses_its_shares(finished):
    out, printed = finished
    study = of_file(out / "study.json", Study)
    found = study.selection
    assert found is not None
    assert found.sentence == printed["selection"]["sentence"]
    assert found.budgets_flops == study.budgets_flops
    assert [(point.budget_flops, point.kept, point.family) for point in found.points] == [
        (budget, kept, family)
        for budget in found.budgets_flops
        for kept in (1.0, 0.5)
        for family in ("dense", "sparse")
    ]
    texts = {share.kept: share.text_digest for share in found.shares}
    assert texts[1.0] == study.text.digest
    for point in found.points:
        runs = [read(out / "runs" / name[:16] / "run.json", Run) for name in point.runs]
        assert [run.recipe.seed for run in runs] == [1, 2, 3]
        assert {run.text_digest for run in runs} == {texts[point.kept]}
        assert point.loss.mean == pytest.approx(sum(run.test_loss for run in runs) / 3)
    assert "Less text, and the best model for it" in (out / "report.html").read_text()
    assert (out / "figures" / "kept_shares.png").exists()
    assert "--select random --keep 1,0.5" in printed["next"]


def test_a_study_whose_machines_come_and_go_finds_what_one_finds(finished, corpus: Path, tmp_path: Path):
    """Its first machine is killed, too, and its worker ends with it; then it is stopped with Ctrl-C."""
    out, several = tmp_path / "mine", ("--workers", "1", "--on", "join")
    without_cells(finished[0], out)
    processes = [start(corpus, out, *several)]
    try:
        door = wait_for_door(out, processes[0])
        worker = joining(out, "b")
        processes.append(worker)
        wait_for_host(out, "b", processes[0])
        os.kill(processes[0].pid, signal.SIGKILL)
        assert worker.wait(PATIENCE) == 0, worker.communicate()[1]
        second = start(corpus, out, *several)
        processes.append(second)
        wait_for_door(out, second, door)
        second.send_signal(signal.SIGINT)
        assert second.wait(PATIENCE) == 130
        assert "Traceback" not in second.communicate()[1]
        assert not (out / JOIN_FILE).exists()
        last = start(corpus, out)
        processes.append(last)
        _, errors = last.communicate(timeout=900)
        assert last.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    study = read_finished(out / "study.json")
    assert cells(study) == cells(read_finished(finished[0] / "study.json"))
    assert study.launch is not None
    assert study.launch.kind == "local"
    hosts = {host.name: host for host in study.launch.hosts}
    assert hosts["b"].cells > 0
    assert [host.name for host in hosts.values() if host.profile_digest == study.frozen.profile_digest] != ["b"]
    assert "All its machines: " in (out / "report.html").read_text()
    assert all(f"<td>{name}</td>" in (out / "report.html").read_text() for name in hosts)


def checkpoint_of(result: dict) -> Path:
    side = result["verdict"]["flops"]["sparse"]
    return Path(side["checkpoint"])


def test_its_checkpoint_evaluates_to_the_loss_of_the_verdict(finished, corpus: Path, capsys):
    _out, result = finished
    checkpoint = checkpoint_of(result)
    record = json.loads((checkpoint.parent / "run.json").read_text())
    sample = corpus / "00.txt"
    assert main(["evaluate", str(checkpoint), "--text", str(sample), "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert scored["bytes"] > 1000
    assert abs(scored["loss"] - record["test_loss"]) < 0.5


def test_its_checkpoint_continues_a_prompt(finished, capsys):
    _, result = finished
    assert main(["generate", str(checkpoint_of(result)), "loss", "--tokens", "80"]) == 0
    assert capsys.readouterr().out.startswith("loss")


def test_its_plan_can_be_trained(finished, corpus: Path, tmp_path: Path, capsys):
    out, _ = finished
    if not (out / "plan.json").exists():
        pytest.skip("this study's law was refused, so there is no plan")
    words = ["train", str(out / "plan.json"), "--text", str(corpus), "--tokens", "20000", "--out", str(tmp_path)]
    assert main([*words, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["flops"] > 0
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["status"] == "finished"
    assert (Path(record["checkpoint"]) / "config.json").exists()
    law, state = law_behind(Path(record["checkpoint"]))  # the chain: checkpoint, settings, plan, study
    assert Path(law) == out.resolve()
    assert float(state["flops"]) == pytest.approx(record["flops"], rel=1e-5)


def test_the_dial_of_a_studys_checkpoint_stands_on_the_studys_law(tmp_path: Path):
    study = shutil.copytree(RECORD, tmp_path / "study")
    run = max(Stored(RECORD).runs, key=lambda run: (run.sparsity.experts > 0, run.flops))
    write(study / "runs" / run.hash / RUN_FILE, run)
    law, state = law_behind(study / "runs" / run.hash / "checkpoint")
    assert Path(law) == study.resolve()
    answer = questions(law, state)["dial"](state)
    assert float(state["position"]) in [row["sparsity"] for row in answer["positions"]]
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(UserError, match=r"there is no run\.json beside"):
        law_behind(tmp_path / "checkpoint")


def test_the_next_command_keeps_the_design_and_goes_sparser_where_the_answer_lies_on_the_sparsest_level():
    bounds = {"seeds": 4, "memory": 2.5e9, "max_total_parameters": 3e6}
    asked = StudySettings(
        text=("my text/",), budgets=(1e11, 3e11), batch=4, sparsities=(0.0, 0.75, 0.9921875), **bounds
    )
    best = study_record().best
    inside, edge = (following(asked, replace(best, sparsest_tried=sparsest)) for sparsest in (False, True))
    assert "--sparsities 0,0.75,0.9921875 --batch 4" in inside
    words = shlex.split(edge)
    verb = VERBS["study"]
    again = read_arguments(verb, words[2:]).settings
    assert again.question().experts() == (0, 8, 256, 512)
    assert (again.text, again.budgets, again.batch) == (("my text/",), (1e12, 3e12), 4)
    assert {name: getattr(again, name) for name in bounds} == bounds
