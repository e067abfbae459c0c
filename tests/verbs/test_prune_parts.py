"""`prune` of layers, neurons and weights as a user runs it: the answer, the table, and what does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars
import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.pruning import pace
from sparsedial.pruning.methods import METHODS
from sparsedial.records.prune import Pruned
from tests.model.shapes import FAMILIES, shaken
from tests.model.test_families import theirs_from
from tests.pruning.planted import saved, with_dead_experts, with_dead_neurons
from tests.records.held import of_file

DEAD = (0, 5, 6, 11)

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    return saved(with_dead_neurons(DEAD, layers=3), tmp_path / "whole")


def prune(checkpoint: Path, text: str, **settings) -> Pruned:
    return sparsedial.prune(checkpoint, **{"calibrate": text, "out": checkpoint.parent / "smaller", **settings})


def test_layers_go_with_all_that_they_have(dense, text):
    answer = prune(dense, text, method="block-influence", keep=1 / 3)
    assert (answer.part, answer.kept.layers, answer.kept.experts, answer.kept.d_ff) == ("layers", (2,), None, None)
    assert answer.target.reached == pytest.approx(1 / 3)
    assert abs(answer.loss_increase[text].mean) < 1e-6
    assert answer.out.read_by == ("transformers", "sparsedial")
    assert json.loads((dense.parent / "smaller" / "config.json").read_text())["num_hidden_layers"] == 1
    assert sparsedial.count(answer.out.path).total_parameters == answer.after.total_parameters
    assert answer.after.weight_bytes == answer.control.weight_bytes < 0.7 * answer.before.weight_bytes
    assert answer.control_draws == 3
    scores = polars.read_parquet(dense.parent / "smaller" / "scores.parquet")
    assert scores.columns == ["layer", "block-influence", "kept"]
    assert scores["kept"].to_list() == [False, False, True]


def test_neurons_go_and_the_configuration_says_the_width(dense, text):
    answer = prune(dense, text, method="activation", keep=2 / 3)
    assert (answer.part, answer.kept.d_ff, answer.kept.layers) == ("neurons", (8, 8, 8), (0, 1, 2))
    assert abs(answer.loss_increase[text].mean) < 1e-6
    assert answer.control.loss[text].loss > answer.before.loss[text].loss + 0.1, "chance drops what matters"
    assert json.loads((dense.parent / "smaller" / "config.json").read_text())["intermediate_size"] == 8
    assert theirs_from(Path(answer.out.path)).config.intermediate_size == 8
    gone = 3 * 4 * 3 * 16  # layers, neurons, matrices, width of the stream
    assert answer.before.total_parameters - answer.after.total_parameters == gone
    assert of_file(dense.parent / "smaller" / "prune.json", Pruned) == answer
    scores = polars.read_parquet(dense.parent / "smaller" / "scores.parquet")
    assert scores.columns == ["layer", "neuron", "mean_activation", "outgoing_norm", "activation", "kept"]
    assert scores.filter("kept", layer=2)["neuron"].to_list() == [n for n in range(12) if n not in DEAD]


def test_neurons_may_go_where_they_matter_least_and_sparsedial_alone_reads_the_result(dense, text):
    answer = prune(dense, text, method="activation", keep=10 / 36, budget="global")
    assert answer.kept.d_ff == (1, 1, 8)
    assert answer.out.read_by == ("sparsedial",)
    assert abs(answer.loss_increase[text].mean) < 1e-6


def test_a_long_calibration_tells_of_its_layers_and_each_measurement_of_its_model(dense, text, capsys, monkeypatch):
    monkeypatch.setattr(pace, "SAID_SECONDS", 0.0)
    prune(dense, text, method="wanda", keep=0.5)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "reading the text"
    assert [line.partition(",")[0] for line in said if line.startswith("layer ")] == ["layer 1 of 3", "layer 2 of 3"]
    assert "measuring the loss of random choice 3 of 3" in said


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_weights_go_and_it_is_said_that_nothing_got_faster(dense, text, method):
    answer = prune(dense, text, method=method, keep=0.5, pattern="2:4")
    assert (answer.part, answer.pattern, answer.sequential) == ("weights", "2:4", method != "magnitude")
    assert answer.kept.weights_share == answer.target.reached == 0.5
    assert answer.after.weight_bytes == answer.before.weight_bytes
    assert answer.after.total_parameters == answer.before.total_parameters
    said = [words for words in answer.warnings if "no smaller and no faster" in words]
    assert said[0].endswith("is the scatter of timings")
    assert len(said) == 1
    assert "tokens a second before" in said[0]
    scores = polars.read_parquet(dense.parent / "smaller" / "scores.parquet")
    assert scores.columns == ["layer", "expert", "matrix", "weights", "kept"]


@pytest.mark.parametrize(
    ("method", "keep", "says"),
    [
        ("block-influence", "0.667", "1 of 3 layers (1), by block-influence"),
        ("activation", "0.667", "4 of 12 neurons in each of 3 layers, by activation"),
        ("random-weights", "0.75", "25 % of the weights of all layers, by random-weights"),
    ],
)
def test_the_table_says_what_was_turned_off(dense, text, capsys, method, keep, says):
    words = ["prune", str(dense), "--keep", keep, "--calibrate", text, "--out", str(dense.parent / "out")]
    assert main([*words, "--method", method]) == 0
    assert says in capsys.readouterr().out


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.drawn])
def test_a_random_choice_has_no_control(tmp_path, text, method):
    checkpoint = saved(with_dead_experts("softmax", (1, 3, 4, 6)), tmp_path / "sparse")
    answer = prune(checkpoint, text, method=method, keep=0.5)
    assert (answer.control, answer.control_draws) == (None, 0)
    assert answer.part == METHODS[method].part


def test_the_control_is_the_mean_of_three_draws_of_the_same_part(dense, text):
    drawn = [
        prune(dense, text, method="random-neurons", keep=0.5, seed=seed, out=dense.parent / str(seed))
        for seed in (5, 6, 7)
    ]
    beside = prune(dense, text, method="activation", keep=0.5, seed=5)
    mean = sum(one.after.loss[text].loss for one in drawn) / 3
    assert beside.control.loss[text].loss == pytest.approx(mean, abs=1e-5)


def test_what_was_pruned_of_one_part_can_be_pruned_of_another(dense, text):
    first = prune(dense, text, method="block-influence", keep=2 / 3, out=dense.parent / "layers")
    second = prune(Path(first.out.path), text, method="activation", keep=2 / 3, out=dense.parent / "neurons")
    third = prune(Path(second.out.path), text, method="wanda", keep=0.75, out=dense.parent / "weights")
    assert abs(second.loss_increase[text].mean) < 1e-6
    assert third.before.loss[text] == second.after.loss[text]
    assert sparsedial.evaluate(third.out.path, text=text).loss > 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"method": "activation", "pattern": "2:4"},
            "pattern: is for single weights, and activation turns neurons off",
        ),
        ({"method": "wanda", "pattern": "1:2"}, "pattern: '1:2' is not known"),
        ({"method": "wanda", "pattern": "2:4", "keep": 0.3}, "pattern: 2:4 keeps 0.5 of the weights"),
        ({"method": "wanda", "budget": "global"}, "budget: wanda has no scores by which layers could compete"),
        ({"method": "block-influence", "sequential": True}, "not with block-influence, uniform"),
        ({"method": "block-influence", "keep": 0.1}, "keep: 0.1 keeps 0 of 3 layers, and at least 1 must stay"),
        ({"method": "activation", "keep": 0.99}, "keep: 0.99 of 12 neurons of a layer is all of them"),
        ({"method": "frequency"}, "is dense: it has no experts to turn off"),
        ({}, "is dense: it has no experts to turn off"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(dense, text, settings, says):
    with pytest.raises(UserError) as refused:
        prune(dense, text, **{"keep": 0.5, **settings})
    assert says in str(refused.value)
    assert not (dense.parent / "smaller").exists()


def test_a_model_without_a_part_is_told_what_it_has(tmp_path, text):
    checkpoint = saved(shaken(replace(FAMILIES["mixtral"], vocab_size=256, layers=1)), tmp_path / "sparse")
    with pytest.raises(UserError, match="sparse has no dense feed-forward layer") as refused:
        prune(checkpoint, text, method="activation", keep=0.5)
    assert (refused.value.hint or "").startswith("what a method can turn off in it: experts: reap")
    assert "layers:" not in (refused.value.hint or ""), "it has one"
    with pytest.raises(UserError, match="sparse has a single layer"):
        prune(checkpoint, text, method="block-influence", keep=0.5)


@pytest.mark.parametrize("method", ["block-influence", "activation", "magnitude", "sparsegpt"])
def test_a_calibration_that_is_foreign_to_the_model_is_refused(dense, tmp_path, method):
    (tmp_path / "foreign.txt").write_text("hdbfgaceahcgebfd" * 40)
    with pytest.raises(UserError, match=r"calibrate: the model's loss on it is .* above the 5.545 of a uniform guess"):
        prune(dense, str(tmp_path / "foreign.txt"), method=method, keep=0.5)
