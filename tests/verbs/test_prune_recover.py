"""`prune --recover` as a user runs it: what it wins back, what it never sees, how it goes on when stopped."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.model.checkpoint import load
from sparsedial.model.digests import digest_of
from sparsedial.model.weights import stream_of
from sparsedial.model.writing import write_checkpoint
from sparsedial.records.prune import Pruned
from sparsedial.shape.counts import forward_flops_per_token, training_flops_per_token
from sparsedial.text.tokenizer import byte_tokenizer
from sparsedial.training import step
from sparsedial.verbs.prune import recovered
from sparsedial.verbs.prune.choice import opened
from sparsedial.verbs.prune.settings import PruneSettings
from sparsedial.verbs.train import described, started
from tests.model.test_families import theirs_from
from tests.pruning.planted import FIRST, SECOND, saved, text_of, with_dead_experts, with_dead_neurons
from tests.records.held import of_file
from tests.verbs.stopped import left_beside, stopped_and_asked_again

DEAD = (1, 3, 4, 6)
STEP = 16 * 32  # tokens


@pytest.fixture(autouse=True)
def quick_to_learn(quick, monkeypatch):
    """A rate by which tiny models learn in a hundred steps."""
    monkeypatch.setitem(started.DEFAULTS, "learning_rate", 0.02)
    monkeypatch.setattr(recovered, "pick_threads", lambda wanted: 1)
    monkeypatch.setattr(recovered, "LEAST_STEPS", 1)


@pytest.fixture
def text(tmp_path: Path) -> str:
    return str(text_of(tmp_path / "both.txt", FIRST, SECOND, letters=12_000))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return saved(with_dead_experts("softmax", DEAD), tmp_path / "whole")


def prune(checkpoint: Path, text: str, **settings) -> Pruned:
    settings = {"keep": 0.5, "calibrate": text, "out": checkpoint.parent / "smaller", "recover": 60 * STEP, **settings}
    return sparsedial.prune(checkpoint, **settings)


@pytest.mark.parametrize("kind", ["loss", "distillation"])
def test_it_wins_back_what_a_random_choice_lost(checkpoint, text, kind):
    before = digest_of(checkpoint)
    answer = prune(checkpoint, text, method="random", recover_by=kind)
    found, folder = answer.recovery, Path(answer.out.path)
    assert (found.tokens, found.kind, found.learning_rate) == (60 * STEP, kind, 0.02)
    shape = load(folder).shape
    taught = forward_flops_per_token(load(checkpoint).shape, 32) if kind == "distillation" else 0
    assert found.flops == (training_flops_per_token(shape, 32) + taught) * found.tokens
    assert found.seconds > 0
    assert found.joules.joules > 0
    assert found.loss_after_cut[text].loss > answer.before.loss[text].loss + 0.3
    assert found.won_back[text].low > 0.2
    lost = found.loss_after_cut[text].loss - answer.before.loss[text].loss
    assert answer.loss_increase[text].mean == pytest.approx(lost - found.won_back[text].mean, abs=1e-6)
    assert of_file(folder / "prune.json", Pruned) == answer
    assert digest_of(checkpoint) == before
    assert digest_of(folder) == answer.out.digest
    assert left_beside(checkpoint) == []
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(load(folder)(ids), theirs_from(folder)(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["loss", "distillation"])
def test_the_original_teaches_where_it_is_asked_for(checkpoint, text, monkeypatch, kind):
    teachers, made = [], step.towards
    monkeypatch.setattr(step, "towards", lambda teacher, *rest: teachers.append(teacher) or made(teacher, *rest))
    prune(checkpoint, text, recover=5 * STEP, recover_by=kind)
    assert len(teachers) == (5 if kind == "distillation" else 0)
    for teacher in teachers:
        assert teacher.shape.experts == 8
        assert torch.equal(teacher.embedding_VD, load(checkpoint).embedding_VD)


def test_what_is_scored_is_never_trained_on_nor_calibrated_with(checkpoint, corpus, tmp_path):
    settings = PruneSettings(
        checkpoint=checkpoint, keep=0.5, calibrate=(str(corpus),), out=tmp_path / "out", recover=STEP
    )
    work = opened(settings, (settings.ask,), tmp_path / "home")
    trained = bytes(work.text.tokens("train").astype(np.uint8))
    assert len(trained) > 100_000
    scored = [bytes(row.astype(np.uint8)) for row in work.scored[str(corpus)].ids_WS1]
    assert len(scored) > 100
    assert [row for row in scored if row in trained] == []
    assert all(bytes(row.astype(np.uint8)) in trained for row in work.calibrating.ids_WS1)


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_weights_that_were_turned_off_stay_off_and_the_others_learn(tmp_path, text, method):
    model = with_dead_neurons((0, 5, 6, 11), layers=3)
    with torch.no_grad():
        for weight in model.blocks.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)), alpha=0.01)
    answer = prune(saved(model, tmp_path / "noisy"), text, method=method)
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "noisy", tmp_path / "smaller"))
    matrices = [name for name in before if "proj" in name]
    assert len(matrices) == 3 * 7
    assert not any(bool((before[name] == 0).any()) for name in matrices)
    for name in matrices:
        off = after[name] == 0
        assert int(off.sum()) == off.numel() // 2, name
        if method == "magnitude":
            assert float(before[name][off].abs().max()) <= float(before[name][~off].abs().min()), name
        assert not torch.equal(after[name][~off], before[name][~off]), name
    assert answer.kept.weights_share == 0.5


def test_weights_come_in_the_types_that_they_had(checkpoint, text, tmp_path):
    model = load(checkpoint)
    halves = [replace(one.mapped(lambda values: values.bfloat16()), dtype=torch.bfloat16) for one in stream_of(model)]
    write_checkpoint(tmp_path / "half", model.shape, halves, byte_tokenizer())
    answer = prune(tmp_path / "half", text, recover=5 * STEP)
    folder = Path(answer.out.path)
    assert {values.dtype for values in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert 2 * answer.after.total_parameters == answer.after.weight_bytes


def test_stopped_it_goes_on_and_ends_bit_for_bit_as_if_it_had_not_been(checkpoint, text, tmp_path, monkeypatch):
    asked = {"method": "random", "recover": 150 * STEP}
    whole = prune(checkpoint, text, out=tmp_path / "whole one", **asked)
    again = stopped_and_asked_again(monkeypatch, lambda: prune(checkpoint, text, **asked), checkpoint, "smaller")
    assert again.out.digest == whole.out.digest
    assert again.recovery.won_back == whole.recovery.won_back


@pytest.mark.parametrize(
    ("tokens", "batch", "steps"), [(2e6, 16, 244), (1e6, 8, 244), (131_072, 2, 128), (65_536, 1, 128), (2048, 1, 4)]
)
def test_a_short_recovery_has_smaller_batches_and_not_fewer_steps(monkeypatch, tokens, batch, steps):
    monkeypatch.undo()  # the steps that users get
    assert recovered.batch_of(tokens, 512) == batch
    assert round(tokens / (batch * 512)) == steps


def test_the_control_is_a_bare_cut_and_that_is_said(checkpoint, text):
    answer = prune(checkpoint, text, recover=5 * STEP)
    assert any("random choices are bare cuts" in words for words in answer.warnings)
    assert not any("no better than chance" in words for words in answer.warnings)
    assert not any("read its text" in words for words in answer.warnings)


def test_a_text_that_was_read_often_is_said(checkpoint, text):
    answer = prune(checkpoint, text, recover=120 * STEP)
    assert answer.recovery.repeats == pytest.approx(120 * STEP / (0.9 * 12_000), rel=0.03)
    assert any(words.startswith("the recovery read its text 5.") for words in answer.warnings)


def test_the_table_says_what_it_took_and_won(checkpoint, text, capsys):
    words = ["prune", str(checkpoint), "--keep", "0.5", "--method", "random", "--calibrate", text]
    words += ["--recover", "10k", "--recover-by", "distillation", "--out", str(checkpoint.parent / "out")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert re.search(r"10.2k tokens by distillation, .* FLOPs, learning rate 0.02", shown)
    assert re.search(r"won back +.* from the bare cut's \d.*, calibration text", shown)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"recover": "many"}, "recover: cannot read 'many'"),
        ({"recover": 0}, "recover: 0 is not a positive number"),
        ({"recover": 1}, "recover: 1 tokens are less than one window of 32"),
        ({"recover": "1e30"}, "recover: recipe: steps="),
        ({"recover_by": "los"}, "recover_by: 'los' is not known"),
        ({"recover": None, "recover_by": "distillation"}, "recover_by: without recover nothing is learned"),
        ({"keep": None, "calibrate": None, "fix_setting": "k=1"}, "fix_setting: goes without recover"),
    ],
)
def test_bad_settings_are_one_line_and_leave_nothing(checkpoint, text, settings, says):
    with pytest.raises(UserError) as refused:
        prune(checkpoint, text, **settings)
    assert says in str(refused.value)
    assert left_beside(checkpoint) == []


def test_a_second_text_that_would_be_trained_on_is_refused(checkpoint, tmp_path):
    for name in "ab":
        text_of(tmp_path / "texts" / f"{name}.txt", FIRST)
    inner, outer = str(tmp_path / "texts" / "a.txt"), str(tmp_path / "texts")
    for first, second in ((outer, inner), (inner, outer)):
        with pytest.raises(UserError, match=r"also: .* share text, and a recovery would learn what is scored"):
            prune(checkpoint, first, also=second)
        with pytest.raises(UserError, match=r"also: .* share text, and what is scored would decide what stays"):
            prune(checkpoint, first, also=second, recover=None)
    assert left_beside(checkpoint) == []


def test_a_text_of_less_than_a_batch_is_refused_before_the_calibration(checkpoint, text, capsys, monkeypatch):
    monkeypatch.setitem(described.RUN_DEFAULTS, "batch", 1000)
    with pytest.raises(UserError, match=r"calibrate: .*less than one batch of 500 windows of 32") as refused:
        prune(checkpoint, text)
    assert "a smaller context" in (refused.value.hint or "")
    assert "calibrating" not in capsys.readouterr().err
    assert left_beside(checkpoint) == []


def test_a_recovery_that_diverges_says_so_and_leaves_nothing(checkpoint, text, monkeypatch):
    monkeypatch.setattr("sparsedial.runs.execute._diverged", lambda step, job: "it was planted")
    with pytest.raises(UserError, match="the recovery diverged: it was planted"):
        prune(checkpoint, text)
    assert not (checkpoint.parent / "smaller").exists()
    assert left_beside(checkpoint) == []
