"""`train` from the command line: what it leaves, what it would cost, and what it refuses before a text is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparsedial.cli.main import main
from sparsedial.machine.energy import CountingMeter
from sparsedial.machine.timing import summarise
from sparsedial.records.recipe import Recipe
from sparsedial.runs import costs, timed
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.ladder import Ladder
from sparsedial.store import read_json

TINY = (
    "--shape.layers 1 --shape.heads 1 --shape.kv_heads 1 --shape.head_dim 8 --shape.d_ff 16 --shape.context 16"
    " --recipe.learning_rate 0.01 --recipe.batch 4 --threads 1"
)


def words(text: Path | str, out: Path, *more: str, width: int = 8) -> list[str]:
    return ["train", *TINY.split(), f"--shape.d_model={width}", "--text", str(text), "--out", str(out), *more]


def test_branches_of_one_run_are_marked_and_a_fit_of_their_folder_counts_them_as_one(corpus, tmp_path, capsys):
    for width in (8, 16):
        given = words(corpus, tmp_path, "--tokens", "4k", "--branches", "640,1280,2k", "--json", width=width)
        assert main(given) == 0
        result = json.loads(capsys.readouterr().out)
        assert len(result["branches"]) == 3
        assert result["trunk"] is not None
        assert {branch["trunk"] for branch in result["branches"]} == {result["trunk"]}
        shared = [run["trunk_steps_shared"] for run in (*result["branches"], result)]
        assert shared == [0, 6, 13, 20]  # two thirds of each shorter run
        assert len({run["hash"] for run in (*result["branches"], result)}) == 4
    kept = [read_json(file) for file in tmp_path.glob("runs/*/run.json")]
    assert len({run["trunk"] for run in kept}) == 2
    assert main(["fit", str(tmp_path), "--form", "chinchilla", "--bootstrap", "5", "--json"]) == 0
    law = json.loads(capsys.readouterr().out)
    assert (law["runs"], law["independent_runs"]) == (8, 2)


@pytest.mark.parametrize(
    ("flags", "says", "hint"),
    [
        (["--branches", "1k", "--recipe.schedule", "cosine"], "shares no step with a longer run", "schedule wsd"),
        (["--branches", "1k", "--recipe.decay_share", "1", "--recipe.warmup_share", "0"], "shares no step", "decay"),
        (["--branches", "4k"], "not shorter than the run", "--tokens"),
        (["--recipe.context", "1", "--shape.mtp_layers", "1"], "not longer than the 1 multi-token", "2 or more"),
        (["--recipe.context", "32"], "more than the 16 positions", "--shape.context"),
        (["--recipe.batch", "1e200", "--recipe.context", "1e200"], "--recipe.batch: 1e+200 lies outside", ""),
        (["--recipe.clip", "inf"], "inf is too large", "at most"),
        (["--recipe.dtype", "int8"], "'int8' is not one of float32, bfloat16", ""),
        (
            ["--recipe.schedule", "cosine", "--recipe.warmup_share", "1", "--recipe.decay_share", "0"],
            "leaves no step for the cosine",
            "wsd",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_text_is_read(tmp_path, capsys, flags, says, hint):
    assert main(words("/nowhere", tmp_path / "out", "--tokens", "4k", *flags)) == 2
    said = capsys.readouterr().err
    assert says in said.splitlines()[0]
    assert hint in said
    assert not (tmp_path / "out").exists()


@pytest.fixture
def measured(monkeypatch) -> list[Recipe]:
    """No step is timed: each takes 10 ms and 1 GB, of which 0.2 GB are weights and moments; the recipes asked for."""
    asked: list[Recipe] = []
    monkeypatch.setattr(costs, "step_by", lambda shape, recipe, *_: asked.append(recipe))
    monkeypatch.setattr(costs, "peak_by", lambda *_: (1e9, 2e8))
    monkeypatch.setattr(costs, "measure_in_turn", lambda calls, **_: {name: summarise([0.01]) for name in calls})
    return asked


def test_a_dry_run_counts_the_spike_guards_copy_and_times_the_recipe_of_the_run(corpus, tmp_path, capsys, measured):
    given = words(corpus, tmp_path, "--tokens", "6400", "--recipe.dtype", "bfloat16", "--dry-run")
    assert main([*given, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["seconds"] == pytest.approx(1.0)  # of 100 steps
    assert (result["memory_bytes"], result["guard_copy_bytes"]) == (1.2e9, 2e8)
    assert main([*given, "--recipe.spike_sigmas", "0", "--json"]) == 0
    unguarded = json.loads(capsys.readouterr().out)
    assert (unguarded["memory_bytes"], unguarded["guard_copy_bytes"]) == (1e9, 0)
    assert main(given) == 0
    assert "1.2 GB  (measured" in (said := capsys.readouterr().out)
    assert "200 MB for the spike guard's copy" in said
    assert {(recipe.dtype, recipe.batch, recipe.steps) for recipe in measured} == {("bfloat16", 4, 100)}


def test_a_dry_run_counts_the_rare_slow_steps_beside_other_work(corpus, tmp_path, capsys, measured, monkeypatch):
    """One step in ten waits for the other core: the median does not see it, and the run pays for it."""
    steps = [0.01] * 9 + [0.91]
    monkeypatch.setattr(costs, "measure_in_turn", lambda calls, **_: {name: summarise(steps) for name in calls})
    assert main(words(corpus, tmp_path, "--tokens", "6400", "--dry-run", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == pytest.approx(10.0)  # of 100 steps


@pytest.mark.parametrize(("watts", "says"), [(20.0, "200 J  (a counter)"), (0.0, "unknown: a counter stood still")])
def test_a_dry_run_meters_the_steps_that_it_times(corpus, tmp_path, capsys, measured, monkeypatch, watts, says):
    clock = [0.0]

    def timed(calls, turn, **_):
        for _ in calls:
            with turn():
                clock[0] += 0.5
        return {name: summarise([0.1]) for name in calls}

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(costs, "measure_in_turn", timed)
    monkeypatch.setattr(costs, "meter", lambda *_: CountingMeter("a counter", lambda: [watts * clock[0]], [1e9]))
    assert main(words(corpus, tmp_path, "--tokens", "6400", "--dry-run")) == 0  # 100 steps of 0.1 s
    shown = capsys.readouterr()
    assert says in shown.out
    assert "trying a few steps of this model\n" in shown.err


def test_what_no_machine_holds_is_counted_with_the_guards_copy_and_multi_token_prediction(
    corpus, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(costs, "device_bytes", lambda device: 1.0)
    results = []
    for flags in ([], ["--recipe.spike_sigmas", "0"], ["--shape.mtp_layers", "1"]):
        assert main(words(corpus, tmp_path, "--tokens", "4k", "--dry-run", "--json", *flags)) == 0
        results.append(json.loads(capsys.readouterr().out))
    guarded, plain, predicting = results
    parts = guarded["memory_parts"]
    copy = parts["weights_bytes"] + parts["moments_bytes"]
    assert guarded["guard_copy_bytes"] == copy
    assert guarded["memory_bytes"] - plain["memory_bytes"] == pytest.approx(copy)
    assert "spike guard" in guarded["memory_source"]
    assert predicting["memory_parts"]["weights_bytes"] > parts["weights_bytes"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_timed_step_is_that_of_the_recipe(monkeypatch, dtype):
    import torch

    from sparsedial.model.transformer import Transformer

    seen, loss = [], Transformer.loss

    def watched(model, ids_BS, *weights):
        seen.append((tuple(ids_BS.shape), weights, model.embedding_VD.dtype))
        return loss(model, ids_BS, *weights)

    monkeypatch.setattr(Transformer, "loss", watched)
    recipe = Recipe(learning_rate=1e6, steps=5, batch=2, context=8, dtype=dtype, mtp_weight=0.25, z_loss_weight=0.5)
    timed.step_by(Ladder(vocab_size=64, context=8).shape(8, 4), recipe, "cpu", 1)()
    assert seen == [((2, 9), (recipe.balance_weight, 0.5, 0.25, None, None, None), getattr(torch, dtype))]


def test_a_copy_outside_of_the_gpu_is_said_and_not_added():
    from sparsedial.runs.job import Job

    recipe = Recipe(learning_rate=1e-3, steps=5, batch=2, context=8, spike_sigmas=6)
    job = Job(shape=Ladder(vocab_size=64, context=8).shape(8, 4), recipe=recipe, text_digest="", tokenizer="",
              device="cuda")  # fmt: skip
    held, copy, source = costs.with_guard_copy(job, 1e9, 2e8, "measured")
    assert (held, copy) == (1e9, 2e8)
    assert "in the host's memory, 200 MB" in source


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_weights_and_moments_of_a_step_are_what_a_guard_would_copy(optimizer):
    shape = Ladder(vocab_size=64, context=8).shape(8, 0)
    recipe = Recipe(learning_rate=1e-3, steps=5, batch=2, context=8, optimizer=optimizer)
    weights = 4 * total_parameters(shape)
    _, state = timed._peak_here(shape, recipe, "cpu", 1)
    assert state == pytest.approx(3 * weights, rel=0.01) if optimizer == "adamw" else weights < state < 3 * weights
