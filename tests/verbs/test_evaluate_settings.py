"""`evaluate --settings`: an answer for each setting of the dial, compared on the same items."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.model.transformer import initialise
from sparsedial.pruning import speed
from sparsedial.records.dial_file import GATES_FILE
from sparsedial.records.evaluation import CheckpointName, Evaluation, Evaluations
from sparsedial.records.record import plain
from sparsedial.records.setting import Setting
from sparsedial.shape.turned import parse_turned
from sparsedial.verbs.evaluate import evaluated
from tests.evaluation.items import write_items
from tests.pruning.planted import FIRST, SECOND, SHAPE, saved, text_of, with_domains
from tests.records.held import of_values


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    return write_items(tmp_path_factory.mktemp("items"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    return str(saved(with_domains(), tmp_path / "one"))


@pytest.fixture
def wide(tmp_path: Path) -> str:
    """Four experts per token, whose choice matters, and room for items."""
    model = initialise(replace(SHAPE, top_k=4, context=600), 3).eval()
    model.sparse_feed_forwards[0].w_out_EFD.data.mul_(30)
    return str(saved(model, tmp_path / "wide"))


@pytest.fixture
def text(tmp_path: Path) -> str:
    for number, domain in enumerate((FIRST, SECOND, FIRST + SECOND)):
        text_of(tmp_path / "text" / f"{number}.txt", domain, letters=500 + 300 * number)
    return str(tmp_path / "text")


def test_each_setting_has_an_answer_of_its_own(checkpoint, text):
    answer = sparsedial.evaluate(checkpoint, text=text, settings="k=2,k=1,skip=0")
    assert isinstance(answer, Evaluations)
    of_values(plain(answer), Evaluations)
    assert [one.setting.name for one in answer.results] == ["k=2", "k=1,skip=0"]
    whole = sparsedial.evaluate(checkpoint, text=text)
    assert whole.setting is None
    assert answer.results[0].loss == whole.loss
    assert answer.results[0].expert_load == whole.expert_load
    assert answer.results[1].setting.active_parameters < answer.results[0].setting.active_parameters


def test_the_losses_of_settings_are_compared_document_by_document(wide, text):
    answer = sparsedial.evaluate(wide, text=text, settings=["k=4", "k=8", "k=1"])
    assert answer.comparisons == 3
    losses = {f"{wide} at {one.setting.name}": one.loss for one in answer.results}
    for pair in answer.paired:
        assert (pair.task, pair.metric, pair.difference.items) == ("text", "loss", 3)
        assert pair.difference.mean == pytest.approx(losses[pair.second] - losses[pair.first], abs=1e-6)
        assert pair.difference.low <= pair.difference.mean <= pair.difference.high
    assert {name for pair in answer.paired for name in (pair.first, pair.second)} == set(losses)


def test_one_setting_is_one_answer(checkpoint, text):
    answer = sparsedial.evaluate(checkpoint, text=text, settings="k=1")
    assert isinstance(of_values(plain(answer), Evaluation), Evaluation)
    assert answer.setting.name == "k=1"


def test_all_are_those_of_dial_json_else_the_halves(checkpoint, text, monkeypatch):
    for name in ("ROUND_SECONDS", "ENERGY_SECONDS"):
        monkeypatch.setattr(speed, name, 0.0)
    monkeypatch.setattr(speed, "peak_memory", lambda *_: 1)
    found = sparsedial.evaluate(checkpoint, text=text, settings="all")
    assert [one.setting.name for one in found.results] == ["k=2", "k=1"]
    sparsedial.dial(checkpoint, measure=True, text=text, settings="skip=0")
    found = sparsedial.evaluate(checkpoint, text=text, settings="all")
    assert [one.setting.name for one in found.results] == ["k=2", "k=2,skip=0"]


def test_tasks_are_scored_and_compared_at_each_setting(wide, data, tmp_path):
    out = {"tasks": "arc_easy", "data": data, "limit": 6, "out": tmp_path / "out"}
    answer = sparsedial.evaluate(wide, **out, settings="k=4,k=1")
    for one in answer.results:
        score = one.tasks["arc_easy"]
        assert score.items_per_second > 0
        assert score.joules_per_item.joules > 0
    (pair,) = answer.paired
    assert (pair.first, pair.second) == (f"{wide} at k=4", f"{wide} at k=1")
    items = [json.loads(line) for line in (tmp_path / "out" / "items.jsonl").read_text().splitlines()]
    assert {item["checkpoint"] for item in items} == {pair.first, pair.second}
    nats = [
        [item["choices_nats"] for item in items if item["checkpoint"] == name] for name in (pair.first, pair.second)
    ]
    assert nats[0] != nats[1], "each setting gave its own answers, though they are kept in one file"
    again = sparsedial.evaluate(wide, **out, settings="k=1")
    assert again.tasks["arc_easy"].metrics == answer.results[1].tasks["arc_easy"].metrics
    assert again.tasks["arc_easy"].items_per_second is None, "its answers were kept"


def test_answers_are_kept_for_the_gates_that_gave_them(tmp_path, monkeypatch):
    """Gates are measured again on other text while the checkpoint stays: their answers are others."""
    dense, keys = replace(SHAPE, experts=0, top_k=0, d_expert=0, dense_layers=0), []
    monkeypatch.setattr(evaluated, "score_tasks", lambda folder, model, called, key, *others: keys.append(key))
    name = CheckpointName(path=str(tmp_path), digest="d", family="llama")
    for text in ("default", "neurons=0.5"):
        for gates in (b"first", b"second"):
            (tmp_path / GATES_FILE).write_bytes(gates)
            setting = Setting.of(parse_turned(text), dense)
            evaluated._results(tmp_path, None, name, setting, {}, {}, None)
    assert keys[0] == keys[1] == "d default"
    assert keys[2] != keys[3]


def test_the_table_shows_settings_by_loss_and_task(wide, data, tmp_path, text, capsys):
    words = ["evaluate", wide, "--settings", "k=4;k=1", "--text", text, "--tasks", "arc_easy", "--data", str(data)]
    assert main([*words, "--limit", "3", "--out", str(tmp_path / "out")]) == 0
    shown, said = capsys.readouterr()
    assert re.findall(r"scoring [\d.k]+ tokens at (.*)", said) == ["k=4", "k=1"]
    lines = shown.splitlines()
    assert lines[0].split() == ["setting", "active", "parameters", "loss", "bits", "per", "byte"]
    assert [line.split()[0] for line in lines[1:3]] == ["k=4", "k=1"]
    assert lines[3].split()[:1] == ["arc_easy"]
    assert "items a second" in lines[3]
    assert any("k=4 → k=1" in line for line in lines)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("k=9", r"settings: k=9 lies outside 1\.\.8"),
        ("best", "settings: cannot read 'best'"),
        ("all;k=1", "settings: cannot read 'all'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(checkpoint, text, given, says):
    with pytest.raises(UserError, match=says):
        sparsedial.evaluate(checkpoint, text=text, settings=given)
