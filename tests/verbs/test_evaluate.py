"""`evaluate` on tasks: answers that continue, items one by one, comparisons, the cost, and bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.evaluation import scorer
from tests.evaluation.items import ITEMS, write_checkpoint, write_items

pytest.importorskip("lm_eval", reason="lm-eval is not installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_items(tmp_path_factory.mktemp("items"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    return write_checkpoint(tmp_path / "one", context=600)


def test_a_checkpoint_is_scored_on_tasks(checkpoint, data, tmp_path):
    answer = sparsedial.evaluate(checkpoint, tasks="arc_easy,boolq", data=data, limit=9, out=tmp_path / "out")
    easy, reading = answer.tasks["arc_easy"], answer.tasks["boolq"]
    assert (easy.items, easy.shots, easy.chance, easy.items_left_out) == (9, 0, 0.25, 0)
    assert easy.metrics["acc"].low <= easy.metrics["acc"].mean <= easy.metrics["acc"].high
    assert easy.answer_bits_per_byte.mean == pytest.approx(8, abs=1.0)
    assert 1 <= easy.gold_rank.mean <= 4
    assert easy.at_chance == (easy.p_value > 0.05)
    assert easy.joules_per_item.joules > 0
    assert (reading.items, reading.items_left_out) == (6, 3), "a passage that does not fit is left out, not cut"
    assert (answer.loss, answer.harness.name) == (None, "lm-eval")
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["tasks"]["arc_easy"]["items"] == 9
    page = (tmp_path / "out" / "scores.md").read_text()
    assert f"| arc_easy | {easy.primary} | 9 items, 0-shot | 25 % |" in page
    assert "](scores.png)" in page
    assert (tmp_path / "out" / "scores.png").stat().st_size > 10_000


def test_items_are_written_one_by_one(checkpoint, data, tmp_path):
    sparsedial.evaluate(checkpoint, tasks="arc_easy,gsm8k", shots=1, data=data, limit=3, out=tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "items.jsonl").read_text().splitlines()]
    assert [(line["task"], line["id"]) for line in lines] == [
        (task, n) for task in ("arc_easy", "gsm8k") for n in range(3)
    ]
    assert lines[0]["chosen"] == max(range(4), key=lines[0]["choices_nats"].__getitem__)
    assert lines[3]["choices_nats"] is None
    assert isinstance(lines[3]["text"], str)


def test_a_stopped_command_goes_on_and_gives_what_an_undisturbed_one_gives(
    checkpoint, data, tmp_path, monkeypatch, capsys
):
    settings = {"tasks": "arc_easy", "data": data}
    whole = sparsedial.evaluate(checkpoint, **settings, out=tmp_path / "whole")
    read, asked = scorer.Scorer.likelihoods, []

    def stopped(self, pairs):
        for number, group in enumerate(read(self, pairs)):
            yield group
            if number == 0:
                raise KeyboardInterrupt

    def noted(self, pairs):
        asked.extend(pairs)
        return read(self, pairs)

    monkeypatch.setattr(scorer, "TOKENS_AT_ONCE", 256)
    monkeypatch.setattr(scorer, "best_size", lambda *_: None)
    monkeypatch.setattr(scorer.Scorer, "likelihoods", stopped)
    words = ["evaluate", checkpoint, "--tasks", "arc_easy", "--data", str(data), "--out", str(tmp_path / "out")]
    assert main(words) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "stopped; answers to tasks are kept: run the same command again to continue"
    kept = len((tmp_path / "out" / "answers.jsonl").read_text().splitlines())
    monkeypatch.setattr(scorer.Scorer, "likelihoods", noted)
    again = sparsedial.evaluate(checkpoint, **settings, out=tmp_path / "out")
    assert 0 < kept < 4 * ITEMS
    assert len(asked) + kept == 4 * ITEMS
    assert again.tasks["arc_easy"].metrics == whole.tasks["arc_easy"].metrics
    assert again.tasks["arc_easy"].items_per_second is None, "some answers were there: no speed was measured"


def test_several_checkpoints_are_compared_on_the_same_items(data, tmp_path, capsys):
    folders = [write_checkpoint(tmp_path / name, seed) for seed, name in enumerate(("one", "two"))]
    words = ["evaluate", *folders, "--tasks", "arc_easy", "--data", str(data), "--out", str(tmp_path / "out")]
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    (pair,) = answer["paired"]
    first, second = (one["tasks"]["arc_easy"]["metrics"][pair["metric"]]["mean"] for one in answer["results"])
    assert (pair["first"], pair["second"], answer["comparisons"]) == (*folders, 1)
    assert pair["difference"]["mean"] == pytest.approx(second - first)
    assert pair["difference"]["items"] == ITEMS
    assert main(words) == 0
    assert "second minus first" in capsys.readouterr().out


def test_items_are_looked_for_in_the_training_text(checkpoint, data, tmp_path, capsys):
    text, other = tmp_path / "text.txt", tmp_path / "other.txt"
    text.write_text("Said by the way: The river is wide. Question: is it so? Answer: no, and yes.")
    other.write_text("Nothing of the kind.")
    words = ["evaluate", checkpoint, "--tasks", "boolq", "--data", str(data), "--out", str(tmp_path / "out")]
    said = []
    for file in (text, other):
        assert main([*words, "--against", str(file)]) == 0
        said.append(capsys.readouterr().out)
    assert "stand in the training text; without them" in said[0]
    assert "boolq: no item stands in the training text" in said[1]


def test_a_dry_run_counts_and_scores_nothing(checkpoint, data, tmp_path, capsys):
    words = ["evaluate", checkpoint, "--tasks", "arc_easy,boolq,gsm8k", "--data", str(data), "--shots", "0"]
    assert main([*words, "--dry-run", "--json", "--out", str(tmp_path / "out")]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["tasks"]["boolq"]["items_too_long"] == 4
    assert answer["tasks"]["arc_easy"]["items"] == ITEMS
    assert answer["tokens"] == sum(task["tokens"] for task in answer["tasks"].values()) > 0
    assert answer["seconds"] > 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no text and no task"),
        ({"tasks": "arc_eesy"}, "no task named 'arc_eesy'"),
        ({"tasks": "arc_easy", "limit": 0}, "limit: 0 lies outside"),
        ({"tasks": "arc_easy", "chat": True}, "no chat template"),
        ({"limit": 5}, "no task|is for tasks"),
        ({"dry_run": True}, "is for tasks"),
        ({"text": "any.txt", "chat": True}, "chat: is for tasks"),
        ({"tasks": "arc_easy", "stride": 8}, "stride: is for a text"),
        ({"tasks": "gsm8k", "context_of_model": 64}, "answers of up to 256 tokens leave no room"),
        ({"tasks": "arc_easy", "data": Path("nowhere")}, r"nowhere.* is missing"),
    ],
)
def test_bad_input_is_one_clear_line(settings, message, data, tmp_path):
    settings = dict(settings)
    folder = write_checkpoint(tmp_path / "one", context=settings.pop("context_of_model", 256))
    if "tasks" in settings:
        settings = {"data": data, **settings}
    with pytest.raises(UserError, match=message):
        sparsedial.evaluate(folder, **settings, out=tmp_path / "out")


def test_a_missing_checkpoint_is_named_before_anything_else(tmp_path):
    with pytest.raises(UserError, match="nosuch"):
        sparsedial.evaluate(tmp_path / "nosuch")


def test_a_missing_lm_eval_names_the_extra(checkpoint, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    evaluate, model = sparsedial.evaluate, sparsedial.lm_eval_model
    for ask in (lambda: evaluate(checkpoint, tasks="arc_easy", data=data), lambda: model(checkpoint)):
        with pytest.raises(UserError, match="the package 'lm-eval' is missing") as told:
            ask()
        assert told.value.hint == "pip install 'sparsedial[evaluate]'"
