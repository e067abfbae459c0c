"""`prune` with targets in the user's words: sizes, a speed, a loss; what was tried for them; tasks before and after."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.pruning import choosing_experts, searching, speed
from sparsedial.records.prune import Pruned
from sparsedial.settings import fill
from sparsedial.verbs.prune.settings import PruneSettings
from tests.pruning.planted import LETTERS, planted, saved, with_dead_experts, with_dead_neurons
from tests.records.held import of_file

DEAD = (1, 3, 4, 6)
DEAD_NEURONS = (0, 5, 6, 11)

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    return saved(with_dead_experts("softmax", DEAD), tmp_path / "sparse")


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    return saved(with_dead_neurons(DEAD_NEURONS, layers=3), tmp_path / "dense")


def prune(checkpoint: Path, text: str, **settings) -> Pruned:
    return sparsedial.prune(checkpoint, **{"calibrate": text, "out": checkpoint.parent / "smaller", **settings})


@pytest.mark.parametrize(
    ("which", "method"), [("sparse", "reap"), ("sparse", "naee"), ("dense", "block-influence"), ("dense", "activation")]
)
@pytest.mark.parametrize("field", ["total_parameters", "active_parameters", "memory"])
def test_a_size_is_kept_by_the_checkpoint_that_is_written(request, text, which, method, field):
    checkpoint = request.getfixturevalue(which)
    half = prune(checkpoint, text, method=method, keep=0.5, out=checkpoint.parent / "half")
    key = {"memory": "weight_bytes"}.get(field, field)
    asked = getattr(half.after, key)
    answer = prune(checkpoint, text, method=method, **{field: asked})
    assert answer.kept == half.kept
    assert (answer.target.kind, answer.target.asked) == ("memory_bytes" if field == "memory" else field, asked)
    assert answer.target.reached == getattr(answer.after, key) == asked
    assert answer.keep == half.keep == half.target.reached
    assert answer.search is None
    assert not any("no size that the model allows" in words for words in answer.warnings)
    assert sparsedial.count(answer.out.path).total_parameters == answer.after.total_parameters
    weights = Path(answer.out.path) / "model.safetensors"
    assert 0 <= weights.stat().st_size - answer.after.weight_bytes < 20_000, "a header beside the weights"
    less = prune(checkpoint, text, method=method, out=checkpoint.parent / "less", **{field: asked - 1})
    assert less.target.reached < asked
    assert less.keep < answer.keep


def test_a_size_far_below_what_was_asked_for_is_said(dense, text):
    whole = sparsedial.count(str(dense)).total_parameters
    answer = prune(dense, text, method="block-influence", total_parameters=whole - 1)
    assert answer.kept.layers != (0, 1, 2)
    assert any(f"the next below it is {answer.after.total_parameters:,}" in words for words in answer.warnings)


def test_the_smallest_share_that_keeps_the_loss_is_found(dense, text):
    answer = prune(dense, text, method="activation", max_loss_increase="1%")
    assert answer.kept.d_ff == (8, 8, 8)
    assert (answer.target.kind, answer.target.asked) == ("max_loss_increase", 0.01)
    assert abs(answer.target.reached) < 1e-6
    assert [step.keep for step in answer.search] == pytest.approx([6 / 12, 9 / 12, 8 / 12, 7 / 12])
    over = [step.loss_increase.mean > 0.01 * answer.before.loss[text].loss for step in answer.search]
    assert over == [True, False, False, True]
    assert {step.speed for step in answer.search} == {None}
    assert answer.search[2].loss_increase.mean == pytest.approx(answer.loss_increase[text].mean, abs=1e-7)
    assert of_file(dense.parent / "smaller" / "prune.json", Pruned) == answer


def test_the_growth_of_the_loss_is_a_share_of_the_originals(dense, text):
    once = prune(dense, text, method="activation", keep=7 / 12, out=dense.parent / "once")
    share = once.loss_increase[text].mean / once.before.loss[text].loss
    assert share > 0.01
    for factor, neurons in ((1.001, 7), (0.999, 8)):
        out = dense.parent / str(neurons)
        answer = prune(dense, text, method="activation", max_loss_increase=factor * share, out=out)
        assert answer.kept.d_ff == (neurons,) * 3


def test_a_growth_that_is_not_surely_within_the_target_is_said(dense, text):
    once = prune(dense, text, method="activation", keep=7 / 12, out=dense.parent / "once")
    grown, loss = once.loss_increase[text], once.before.loss[text].loss
    assert grown.mean < grown.high
    near = prune(dense, text, method="activation", max_loss_increase=(grown.mean + grown.high) / 2 / loss)
    assert near.keep == once.keep
    assert any("is not sure" in words for words in near.warnings)
    far = {"max_loss_increase": 1.01 * grown.high / loss, "out": dense.parent / "far"}
    assert not any("is not sure" in words for words in prune(dense, text, method="activation", **far).warnings)


def test_the_largest_share_that_is_fast_enough_is_found(dense, text, monkeypatch):
    monkeypatch.setattr(
        searching, "times_as_fast", lambda before, after, text: before.shape.layers / after.shape.layers
    )
    answer = prune(dense, text, method="block-influence", speed="1.4x")
    assert len(answer.kept.layers) == 2
    assert (answer.target.kind, answer.target.asked) == ("speed", 1.4)
    before, after = (costs.decode_tokens_per_second.median for costs in (answer.before, answer.after))
    assert answer.target.reached == after / before, "as measured at the end"
    assert [step.keep for step in answer.search] == pytest.approx([1 / 3, 2 / 3])
    assert [step.speed for step in answer.search] == [3.0, 1.5]
    said = any("speeds vary" in words for words in answer.warnings)
    assert said == (answer.target.reached < 1.4)


def test_a_model_of_fewer_layers_is_timed_as_faster():
    slow, fast = with_dead_neurons(DEAD_NEURONS, layers=12), with_dead_neurons(DEAD_NEURONS, layers=1)
    assert speed.times_as_fast(slow, fast) > 1 > speed.times_as_fast(fast, slow)


@pytest.mark.parametrize(("more", "calibrated"), [({}, 1), ({"sequential": True}, 3)])
def test_a_search_calibrates_once_unless_scores_depend_on_the_share(sparse, text, monkeypatch, more, calibrated):
    read = []

    def counted(name: str) -> None:
        function = getattr(choosing_experts, name)

        def counting(*given, **named):
            read.append(name)
            return function(*given, **named)

        monkeypatch.setattr(choosing_experts, name, counting)

    counted("gather")
    counted("keep_in_turn")
    answer = prune(sparse, text, max_loss_increase="1%", **more)
    assert answer.kept.experts == ((0, 2, 5, 7),)
    assert [step.keep for step in answer.search] == pytest.approx([5 / 8, 3 / 8, 4 / 8])
    assert len(read) == calibrated


def test_weights_are_searched_by_loss_alone(dense, text):
    answer = prune(dense, text, method="wanda", max_loss_increase="5%")
    most = 0.05 * answer.before.loss[text].loss
    assert answer.target.reached <= 0.05
    assert answer.kept.weights_share == answer.keep < 1
    assert answer.keep == min(step.keep for step in answer.search if step.loss_increase.mean <= most)


def test_the_table_shows_what_was_asked_for_and_tried(dense, text, capsys):
    words = ["prune", str(dense), "--calibrate", text, "--out", str(dense.parent / "out"), "--method", "activation"]
    assert main([*words, "--max-loss-increase", "1%"]) == 0
    captured = capsys.readouterr()
    (target,) = (line for line in captured.out.splitlines() if line.startswith("target"))
    assert "1 % more loss; reached: " in target
    assert re.search(r"0.6667 stays: [+−]0.000 nats per token", captured.out)
    assert "4 of 12 neurons in each of 3 layers, by activation" in captured.out
    assert "0.5 of the neurons stay: " in captured.err


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "nothing says how much stays; known are keep, total_parameters, active_parameters, memory, speed, max_"),
        ({"keep": 0.5, "memory": "1MB"}, "memory: goes without keep"),
        ({"speed": "2x", "max_loss_increase": "2%"}, "max_loss_increase: goes without speed"),
        ({"total_parameters": "many"}, "total_parameters: cannot read 'many'"),
        ({"total_parameters": "3B"}, "at most 3,000,000,000 parameters are asked for, and the model has "),
        ({"total_parameters": "3B"}, "; the nearest below is "),
        ({"active_parameters": "1k"}, "no share keeps at most 1,000 parameters that a token uses: the nearest is "),
        ({"memory": "1kB"}, "memory: no share keeps at most 1,000 bytes of weights: the nearest is"),
        ({"speed": "1x"}, "speed: 1 times is no faster than the original"),
        ({"speed": "fast"}, "speed: cannot read 'fast'"),
        ({"max_loss_increase": "0%"}, "max_loss_increase: 0% is not a positive number"),
        ({"speed": "2x", "method": "wanda"}, "speed: wanda turns single weights off, which are stored as zeros"),
        ({"memory": "1MB", "method": "magnitude"}, "memory: magnitude turns single weights off"),
        ({"keep": 0.5, "limit": 3}, "limit: is for tasks, and none is given"),
        ({"keep": 0.5, "tasks": "arc_easy", "limit": 0}, "limit: 0 lies outside"),
    ],
)
def test_targets_that_do_not_fit_are_one_line_and_leave_nothing(dense, text, settings, says):
    with pytest.raises(UserError) as refused:
        prune(dense, text, **{"method": "activation", **settings})
    assert says in str(refused.value)
    assert not (dense.parent / "smaller").exists()


def test_a_speed_that_nothing_reaches_names_the_nearest(dense, text, monkeypatch):
    monkeypatch.setattr(
        searching, "times_as_fast", lambda before, after, text: before.shape.layers / after.shape.layers
    )
    with pytest.raises(UserError, match=r"no share reaches 5 times the speed: the nearest is 3 times .*where 0.3333"):
        prune(dense, text, method="block-influence", speed="5x")
    assert not (dense.parent / "smaller").exists()


def test_a_loss_that_nothing_keeps_names_the_nearest(tmp_path, text):
    """Every expert serves a letter of its own."""
    first = {letter: at for at, letter in enumerate(LETTERS)}
    checkpoint = saved(planted(first, {letter: (at + 1) % 8 for at, letter in enumerate(LETTERS)}), tmp_path / "all")
    with pytest.raises(UserError, match=r"no share keeps within 0.1 % more loss: the nearest is .* % .*, where 0.875"):
        prune(checkpoint, text, max_loss_increase="0.1%")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    from tests.evaluation.items import write_items

    return write_items(tmp_path_factory.mktemp("items"))


def test_tasks_are_scored_before_and_after_as_evaluate_scores_them(data, tmp_path, text, monkeypatch, capsys):
    from tests.evaluation.items import write_checkpoint

    checkpoint = write_checkpoint(tmp_path / "whole", context=600)
    monkeypatch.setattr(choosing_experts, "require_known", lambda loss, shape: None)  # it is not trained
    words = ["prune", checkpoint, "--keep", "0.5", "--calibrate", text, "--out", str(tmp_path / "smaller")]
    words += ["--tasks", "arc_easy", "--data", str(data), "--limit", "9", "--context", "64"]
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    for cost, folder in (("before", checkpoint), ("after", tmp_path / "smaller")):
        alone = sparsedial.evaluate(folder, tasks="arc_easy", data=data, limit=9, out=tmp_path / cost)
        found, wanted = answer[cost]["tasks"]["arc_easy"], alone.tasks["arc_easy"]
        assert found["items"] == 9
        assert found["metrics"][wanted.primary]["mean"] == wanted.metrics[wanted.primary].mean
        assert found["answer_bits_per_byte"]["mean"] == pytest.approx(wanted.answer_bits_per_byte.mean)
    assert answer["control"]["tasks"] is None
    assert main([*words[:7], str(tmp_path / "again"), *words[8:]]) == 0
    assert f"arc_easy, {wanted.primary}" in capsys.readouterr().out


def test_a_task_that_is_unknown_or_does_not_fit_is_refused_before_anything_is_done(data, sparse, text, monkeypatch):
    monkeypatch.setattr(choosing_experts, "gather", None)  # is not called
    with pytest.raises(UserError, match="no task named 'arc_eesy'"):
        prune(sparse, text, keep=0.5, tasks="arc_eesy", data=data)
    with pytest.raises(UserError, match="leave no room"):
        prune(sparse, text, keep=0.5, tasks="gsm8k", data=data)


def test_a_share_may_be_written_in_percent(dense, text):
    given = {"checkpoint": dense, "calibrate": (text,), "out": dense.parent / "out"}
    assert fill(PruneSettings, {**given, "keep": "50%"}, "prune").keep == 0.5
    asked = fill(PruneSettings, {**given, "compare": "reap", "strengths": "75%,.5"}, "prune")
    assert asked.strengths == (0.75, 0.5)
