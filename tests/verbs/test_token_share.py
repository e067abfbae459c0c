"""`train` and `study` with a token share: the reference model is trained or named, read from disk, and paid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparsedial.cli.main import main
from sparsedial.machine.timing import summarise
from sparsedial.records.answers import Trained, TrainSettingsFile
from sparsedial.records.dry_run import StudyDryRun, TrainDryRun
from sparsedial.records.token_selection import REFERENCE_FILE, ReferenceLossesFile
from sparsedial.selection import reference, token_losses
from sparsedial.shape.counts import forward_flops_per_token, training_flops_per_token
from sparsedial.shape.ladder import Ladder
from sparsedial.sweep import local_lab
from sparsedial.text.reference_losses import BYTES_FILE
from tests.machine.test_profile import profile_of
from tests.records.held import of_file, of_values
from tests.verbs.test_train import measured, words  # noqa: F401  # a fixture

SHARED = ["--tokens", "4k", "--token-share", "60%"]


def answered(capsys: pytest.CaptureFixture[str], given: list[str]) -> dict:
    assert main([*given, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference model of a moment."""
    shorten(monkeypatch)


def shorten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reference, "STEPS", 12)
    patch.setattr(reference, "LEAST_STEPS", 10)
    patch.setattr(token_losses, "measure_in_turn", lambda calls, **_: {name: summarise([0.01]) for name in calls})


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained its own reference model."""
    out = tmp_path_factory.mktemp("train")
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        assert main(words(corpus, out, *SHARED)) == 0
    return out


def test_a_run_trains_its_reference_model_and_says_what_that_cost(trained, corpus, capsys):
    before = (trained / "text" / BYTES_FILE).stat().st_mtime_ns
    run = of_values(answered(capsys, words(corpus, trained, *SHARED)), Trained)
    assert (trained / "text" / BYTES_FILE).stat().st_mtime_ns == before, "losses that are there are not made again"
    facts = of_file(trained / "text" / REFERENCE_FILE, ReferenceLossesFile)
    assert run.token_selection.share == 0.6
    assert run.token_selection.reference == facts.reference
    assert run.reference_cost == facts.cost
    shape = Ladder(vocab_size=256, context=16).shape(reference.WIDTH, 0)
    learned = reference.STEPS * reference.BATCH * reference.CONTEXT
    assert facts.cost.training_flops == training_flops_per_token(shape, 16) * learned
    read_twice = facts.cost.scoring_flops / forward_flops_per_token(shape, 16)
    assert read_twice == pytest.approx(2 * facts.tokens, rel=0.01)
    assert of_file(trained / "settings.json", TrainSettingsFile).token_selection == run.token_selection


def test_a_reference_model_that_is_named_selects_other_tokens(trained, corpus, tmp_path, capsys):
    mine = answered(capsys, words(corpus, trained, *SHARED))
    named = answered(capsys, words(corpus, tmp_path, *SHARED, "--reference", str(trained / "checkpoint")))
    assert named["hash"] != mine["hash"]
    assert named["test_loss"] != mine["test_loss"]
    assert named["reference_cost"]["training_flops"] == 0
    assert named["token_selection"]["reference"]["path"].startswith(str(trained))
    assert not (tmp_path / "reference").exists()
    other = answered(
        capsys,
        words(corpus, tmp_path, "--tokens", "4k", "--token-share", "30%", "--reference", str(trained / "checkpoint")),
    )
    assert other["hash"] != named["hash"]


@pytest.mark.usefixtures("measured")
def test_a_dry_run_counts_the_reference_model(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(token_losses, "step_by", lambda *_: lambda: None)
    plain = answered(capsys, words(corpus, tmp_path, "--tokens", "4k", "--dry-run"))
    cost = of_values(answered(capsys, words(corpus, tmp_path, *SHARED, "--dry-run")), TrainDryRun)
    paid = cost.reference_cost
    assert plain["reference_cost"] is None
    assert min(paid.training_flops, paid.scoring_flops, paid.seconds) > 0
    assert cost.flops == plain["flops"] + paid.flops
    assert cost.seconds == pytest.approx(plain["seconds"] + paid.seconds)
    assert not (tmp_path / "reference").exists()
    assert main(words(corpus, tmp_path, *SHARED, "--dry-run")) == 0
    assert "of which a reference model takes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "says", "hint"),
    [
        (["--token-share", "1"], "--token-share: 1 leaves no token out", "below 1"),
        (["--token-share", "120%"], "--token-share: 1.2 leaves no token out", "below 1"),
        (["--token-share", "0"], "--token-share: 0 is not a positive number", "8%"),
        (["--reference", "there"], "--reference: without a share no tokens are selected", "--token-share 60%"),
        (["--token-share", "60%", "--reference", "/nowhere"], "--reference: '/nowhere' is no folder", "leave it out"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "study"])
def test_what_selects_no_tokens_is_refused_before_the_text_is_read(tmp_path, capsys, verb, flags, says, hint):
    given = (
        words("/nowhere/text", tmp_path / "out", "--tokens", "4k") if verb == "train" else ["study", "/nowhere/text"]
    )
    assert main([*given, *flags]) == 2
    said = capsys.readouterr().err
    assert says in said.splitlines()[0]
    assert hint in said
    assert not (tmp_path / "out").exists()


def test_a_reference_model_that_does_not_fit_the_text_is_refused_in_a_line(trained, corpus, tmp_path, capsys):
    named = [*SHARED, "--reference", str(trained / "checkpoint")]
    for change, says in (("bpe", "has the tokenizer bytes"), ("context", "reads 16 tokens at a time")):
        given = words(corpus, tmp_path / change, *named, *(["--tokenizer", "bpe:270"] if change == "bpe" else []))
        if change == "context":
            given[given.index("--shape.context") + 1] = "32"
        assert main(given) == 2
        reading, error, *_ = capsys.readouterr().err.splitlines()
        assert (reading, says in error) == ("reading the text", True)


def test_a_text_too_small_for_a_reference_model_is_refused(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    assert main(words(corpus / "00.txt", tmp_path, *SHARED)) == 2
    said = capsys.readouterr().err
    assert "--token-share: " in said
    assert "train tokens are too few for a reference model" in said
    assert "a trained one with --reference" in said


def test_a_dry_run_of_a_study_counts_the_reference_model_in_its_time(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(local_lab, "measure_on", lambda *_: lambda *_: profile_of(0.0))
    slow = {"scoring": summarise([60.0]), "training": summarise([1.0])}
    monkeypatch.setattr(token_losses, "measure_in_turn", lambda calls, **_: {name: slow[name] for name in calls})
    given = ["study", str(corpus), "--budgets", "1e11,3e11", "--device", "cpu", "--out", str(tmp_path), "--dry-run"]
    plain = answered(capsys, given)
    cost = of_values(answered(capsys, [*given, "--token-share", "60%"]), StudyDryRun)
    assert plain["reference_cost"] is None
    assert cost.flops == plain["flops"] + cost.reference_cost.flops
    assert cost.reference_cost.seconds > 1000
    assert cost.seconds - plain["seconds"] == pytest.approx(cost.reference_cost.seconds, rel=0.05)
    assert not (tmp_path / "reference").exists()
    assert not (tmp_path / "study.json").exists()


def test_a_study_that_cannot_be_pays_for_no_reference_model(corpus, tmp_path, capsys):
    given = ["study", str(corpus), "--budgets", "1e9,2e9", "--device", "cpu", "--out", str(tmp_path)]
    assert main([*given, "--token-share", "60%"]) == 2
    assert "allow no size with" in capsys.readouterr().err
    assert not (tmp_path / "reference").exists()
