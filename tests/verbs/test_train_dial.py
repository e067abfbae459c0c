"""`train --dial`: what it leaves and prints, what it would cost, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.store import read_json
from sparsedial.units import count_words
from tests.verbs.test_chain import NAME, folder, plan, text, trained  # noqa: F401  # fixtures
from tests.verbs.test_train import measured, words  # noqa: F401  # a fixture

SPARSE = ("--shape.experts=8", "--shape.d_expert=8", "--shape.d_ff=0")


def dialled(corpus: Path | str, out: Path, *more: str, tokens: str = "4k") -> list[str]:
    return words(corpus, out, *SPARSE, "--tokens", tokens, *more)


def test_the_answer_the_table_and_the_files_say_the_loss_at_each_number(corpus, tmp_path, capsys):
    assert main(dialled(corpus, tmp_path, "--dial", "4,1,2", "--dial-by", "layer", "--json")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["dial"] == {"top_k_experts": [1, 2, 4], "by": "layer", "end": "highest"}
    assert answer["shape"]["top_k"] == 4
    assert [one["top_k_experts"] for one in answer["dial_losses"]] == [1, 2, 4]
    assert answer["dial_losses"][-1]["test_loss"] == answer["test_loss"]
    assert len({one["test_loss"] for one in answer["dial_losses"]}) == 3
    assert answer["start"] is None
    (kept,) = tmp_path.glob("runs/*/run.json")
    assert read_json(kept)["dial_losses"] == answer["dial_losses"]
    assert read_json(tmp_path / "settings.json")["dial"] == answer["dial"]
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    assert config["sparsedial_trained_for"] == answer["dial"]
    assert main(dialled(corpus, tmp_path, "--dial", "4,1,2", "--dial-by", "layer")) == 0  # done already
    said = capsys.readouterr().out
    for one in answer["dial_losses"]:
        assert f"  with {count_words(one['top_k_experts'], 'expert')} " in said
        assert f"{one['test_loss']:.4f} nats per token" in said


def test_python_and_a_settings_file_take_a_list(corpus, tmp_path):
    (tmp_path / "job.yaml").write_text("dial: [1, 2]\ndry_run: true\n")
    assert main(["train", str(tmp_path / "job.yaml"), *dialled(corpus, tmp_path / "a")[1:]]) == 0
    given = {"layers": 1, "d_model": 8, "heads": 1, "kv_heads": 1, "head_dim": 8, "context": 16, "experts": 4,
             "d_expert": 8, "d_ff": 0}  # fmt: skip
    recipe = {"steps": 3, "batch": 2, "learning_rate": 0.01}
    run = sparsedial.train(text=str(corpus), shape=given, recipe=recipe, dial=[1, 2], threads=1, out=tmp_path / "b")
    assert run.dial.top_k_experts == (1, 2)


def test_a_dry_run_counts_and_times_the_numbers_that_are_drawn(corpus, tmp_path, capsys, measured, monkeypatch):  # noqa: F811
    from sparsedial.machine.timing import summarise
    from sparsedial.runs import costs

    monkeypatch.setattr(
        costs, "measure_in_turn", lambda calls, **_: {name: summarise([0.01 * (name or 5)]) for name in calls}
    )
    given = dialled(corpus, tmp_path, "--dry-run", "--json", tokens="6400")
    answers = []
    for flags in (["--shape.top_k", "2"], ["--dial", "1,2", "--dial-end", "lowest"], ["--dial", "1,2"]):
        assert main([*given, *flags]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    full, dial, by_default = answers
    assert full["seconds"] == pytest.approx(100 * 0.05)
    assert dial["seconds"] == pytest.approx(55 * 0.01 + 45 * 0.02)  # the last ten of 100 steps have the lowest
    one_expert = 3 * 2 * 3 * 8 * 8  # FLOPs of a token in training
    assert full["flops"] - dial["flops"] == 55 * 64 * one_expert
    assert by_default["seconds"] == pytest.approx(45 * 0.01 + 55 * 0.02)
    assert full["flops"] - by_default["flops"] == 45 * 64 * one_expert


@pytest.mark.parametrize(
    ("flags", "says", "hint"),
    [
        ("--dial 2,64", "--dial: 64 is more than the model's 8 experts", ""),
        ("--dial 0,4", "--dial: 0 experts are none", ""),
        ("--dial 4", "--dial: '4' is a single number", "2,4,8"),
        ("--dial 2,2,4", "--dial: 2,2,4 has a number twice", ""),
        ("--dial 2,four", "'four' is not a number", ""),
        ("--dial 2,4.5", "4.5 is not a whole number", ""),
        (
            "--dial 1,2 --shape.top_k 4",
            "the highest number is 2, and the model's tokens visit top_k=4",
            "--shape.top_k",
        ),
        ("--dial 2,4 --shape.top_p 0.9", "with top_p=0.9 each token has its own number", "--shape.top_p"),
        ("--dial 2,4 --dial-by token", "--dial-by: 'token' is not known", "step, layer"),
        ("--dial 2,4 --dial-end middle", "--dial-end: 'middle' is not known", "highest, lowest"),
        ("--dial-end lowest --shape.top_k 2", "--dial-end: without a dial nothing is drawn", "--dial"),
        ("--dial-by layer --shape.top_k 2", "--dial-by: without a dial nothing is drawn", "--dial"),
    ],
)
def test_a_dial_that_cannot_be_trained_for_is_one_line_before_the_text_is_read(tmp_path, capsys, flags, says, hint):
    assert main(dialled("/nowhere", tmp_path / "out", *flags.split())) == 2
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines()) <= 2) == ("", True)
    assert says in said.err.splitlines()[0]
    assert hint in said.err
    assert not (tmp_path / "out").exists()


def test_a_dense_model_and_a_study_have_no_dial(tmp_path, capsys):
    assert main(words("/nowhere", tmp_path / "out", "--tokens", "4k", "--dial", "2,4")) == 2
    assert "--dial: a dense model has no experts to choose from" in capsys.readouterr().err
    assert main(["study", "--dial", "2,4"]) == 2
    assert "no setting named 'dial'" in capsys.readouterr().err


def sparse(values) -> None:
    values["shape"] |= {"d_ff": 0, "experts": 8, "top_k": 2, "d_expert": 8}


def test_a_plan_is_about_one_number(folder, corpus, capsys):  # noqa: F811
    from tests.verbs.test_chain import edit

    edit(folder / NAME, sparse)
    status, said, out = trained(folder / NAME, corpus, capsys, "--dial", "2,4")
    assert status == 2
    assert "the highest number is 4, and the model's tokens visit top_k=2" in said
    assert not out.exists()
    status, said, out = trained(folder / NAME, corpus, capsys, "--dial", "1,2")
    assert status == 0
    assert "is about a model that has top_k=2 experts in every step" in said
    assert "the predicted loss and cost are not about this run" in said
    (kept,) = out.glob("runs/*/run.json")
    assert read_json(kept)["dial"]["top_k_experts"] == [1, 2]


def test_the_branches_of_a_run_have_its_dial(corpus, tmp_path, capsys):
    given = dialled(corpus, tmp_path, "--dial", "1,2", "--branches", "2k", "--json")
    assert main(given) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["trunk_steps_shared"] > 0
    kept = [read_json(file) for file in tmp_path.glob("runs/*/run.json")]
    assert [run["dial"]["top_k_experts"] for run in kept] == [[1, 2]] * 2
