"""`prune --split-experts --recover` as a user runs it: it is trained at the number of experts that is asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.model.checkpoint import load
from sparsedial.model.digests import digest_of
from sparsedial.pruning import splitting
from sparsedial.records.dial_file import DialFile
from sparsedial.records.split import SplitExperts
from sparsedial.shape.counts import forward_flops_per_token, training_flops_per_token
from sparsedial.training import step
from sparsedial.verbs.prune import recovered
from sparsedial.verbs.train import described, started
from tests.pruning.planted import FIRST, SECOND, saved, text_of, with_clusters
from tests.records.held import of_file
from tests.verbs.stopped import left_beside, stopped_and_asked_again

STEP = 16 * 32  # tokens


@pytest.fixture(autouse=True)
def quick_to_learn(quick, monkeypatch):
    """A rate by which tiny models learn in some steps."""
    monkeypatch.setitem(started.DEFAULTS, "learning_rate", 0.02)
    monkeypatch.setattr(recovered, "pick_threads", lambda wanted: 1)
    monkeypatch.setattr(recovered, "LEAST_STEPS", 1)


@pytest.fixture
def text(tmp_path: Path) -> str:
    return str(text_of(tmp_path / "both.txt", FIRST, SECOND, letters=12_000))


@pytest.fixture
def dense(tmp_path: Path, monkeypatch) -> Path:
    """Each letter has neurons of its own, and the router that is made for their experts is drawn."""

    def drawn(x_TD: torch.Tensor, done_TE: torch.Tensor) -> torch.Tensor:
        return torch.randn(x_TD.shape[1], done_TE.shape[1], generator=torch.Generator().manual_seed(0))

    monkeypatch.setattr(splitting, "fitted_router", drawn)
    return saved(with_clusters()[0], tmp_path / "dense")


def split(dense: Path, text: str, **settings) -> SplitExperts:
    given = {"split_experts": 8, "always": 1, "top_k": 1, "calibrate": text, "out": dense.parent / "split"}
    found = sparsedial.prune(dense, **{**given, "recover": 60 * STEP, **settings})
    assert isinstance(found, SplitExperts)
    return found


@pytest.mark.parametrize("kind", ["loss", "distillation"])
def test_it_wins_back_what_fewer_experts_lost(dense, text, monkeypatch, kind):
    teachers, made = [], step.towards
    monkeypatch.setattr(step, "towards", lambda teacher, *rest: teachers.append(teacher) or made(teacher, *rest))
    before = digest_of(dense)
    answer = split(dense, text, recover_by=kind)
    found, folder = answer.recovery, Path(answer.out.path)
    assert (found.tokens, found.kind, found.learning_rate) == (60 * STEP, kind, 0.02)
    shape = load(folder).shape
    assert (shape.top_k, shape.gate) == (1, "ones")
    taught = forward_flops_per_token(load(dense).shape, 32) if kind == "distillation" else 0
    assert found.flops == (training_flops_per_token(shape, 32) + taught) * found.tokens
    assert len(teachers) == (60 if kind == "distillation" else 0)
    assert {teacher.shape.experts for teacher in teachers} <= {0}, "the dense original teaches"
    assert found.seconds > 0
    assert found.joules.joules > 0
    lost = found.loss_after_cut[text].loss - answer.before.loss[text].loss
    assert lost > 0.1
    assert found.won_back[text].low > lost / 2
    point = answer.dial[-1]
    assert (point.setting.name, point.costs) == ("k=1", answer.after)
    assert point.loss_increase[text].mean == pytest.approx(lost - found.won_back[text].mean, abs=1e-6)
    assert any(words.startswith("the random division and the removal are bare cuts") for words in answer.warnings)
    assert of_file(folder / "prune.json", SplitExperts) == answer
    assert of_file(folder / "dial.json", DialFile).default == "k=1"
    assert digest_of(dense) == before
    assert digest_of(folder) == answer.out.digest
    assert left_beside(dense) == []
    joined = sparsedial.prune(folder, join_experts=True, out=dense.parent / "joined")
    assert not joined.same_weights
    with torch.no_grad():
        ids = torch.tensor([list(b"abcdefgh")])
        every = sparsedial.load(folder, setting="k=8")(ids)
        torch.testing.assert_close(load(dense.parent / "joined")(ids), every, atol=1e-4, rtol=1e-4)


def test_stopped_it_goes_on_and_ends_bit_for_bit_as_if_it_had_not_been(dense, text, tmp_path, monkeypatch):
    asked = {"recover": 150 * STEP}
    whole = split(dense, text, out=tmp_path / "whole", **asked)
    again = stopped_and_asked_again(monkeypatch, lambda: split(dense, text, **asked), dense, "split")
    assert again.out.digest == whole.out.digest
    assert again.recovery.won_back == whole.recovery.won_back


def test_the_table_says_what_it_took_and_won(dense, text, capsys):
    words = ["prune", str(dense), "--split-experts", "8", "--always", "1", "--top-k", "1", "--calibrate", text]
    words += ["--recover", "10k", "--recover-by", "distillation", "--out", str(dense.parent / "out")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert re.search(r"10.2k tokens by distillation, .* FLOPs, learning rate 0.02", shown)
    assert re.search(r"won back +.* from the bare cut's \d.*, calibration text", shown)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"top_k": None}, "recover: a token visits all experts, so nothing is lost"),
        ({"top_k": 8}, "recover: a token visits all experts, so nothing is lost"),
        ({"recover": None, "recover_by": "distillation"}, "recover_by: without recover nothing is learned"),
        ({"recover_by": "los"}, "recover_by: 'los' is not known"),
        ({"recover": "many"}, "recover: cannot read 'many'"),
    ],
)
def test_bad_settings_are_one_line_and_leave_nothing(dense, text, settings, says):
    with pytest.raises(UserError) as refused:
        split(dense, text, **settings)
    assert says in str(refused.value)
    assert left_beside(dense) == []


def test_a_text_of_less_than_a_batch_is_refused_before_the_calibration(dense, text, capsys, monkeypatch):
    monkeypatch.setitem(described.RUN_DEFAULTS, "batch", 1000)
    with pytest.raises(UserError, match=r"calibrate: .*less than one batch of 500 windows of 32"):
        split(dense, text)
    assert "calibrating" not in capsys.readouterr().err
    assert left_beside(dense) == []
