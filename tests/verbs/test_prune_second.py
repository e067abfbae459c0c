"""Without a second text `prune` takes one of the calibration's files: it is scored, and neither decides nor teaches."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.pruning import second
from sparsedial.pruning.in_turn import Passage
from sparsedial.records.prune import Pruned
from sparsedial.verbs.prune import recovered
from sparsedial.verbs.prune.choice import opened
from sparsedial.verbs.prune.settings import PruneSettings
from sparsedial.verbs.prune.unfinished import key_of
from tests.pruning.planted import FIRST, SECOND, saved, text_of, with_clusters, with_domains
from tests.records.held import of_file

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return saved(with_domains(), tmp_path / "whole")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder of one domain, with a file of another."""
    (tmp_path / "texts").mkdir()
    whole, ends = text_of(tmp_path / "whole.txt", FIRST, letters=17_000).read_text(), (0, 4000, 8100, 12_300, 16_600)
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        (tmp_path / "texts" / f"{number}.txt").write_text(whole[start:end])
    text_of(tmp_path / "texts" / "other.txt", SECOND, letters=2000)
    return tmp_path / "texts"


def prune(checkpoint: Path, *texts: Path, **settings):
    asked = {"keep": 0.5, "calibrate": ",".join(map(str, texts)), "out": checkpoint.parent / "smaller", **settings}
    return sparsedial.prune(checkpoint, **asked)


def test_a_file_of_another_kind_is_left_out_of_the_calibration_and_scored(checkpoint, texts, capsys):
    """The experts of its letters are reached by no calibration token, and its loss shows that they went."""
    answer, other = prune(checkpoint, texts), str(texts / "other.txt")
    assert answer.kept.experts == ((0, 1, 2, 3),)
    assert answer.unscored_experts == ((1, 4), (1, 5), (1, 6), (1, 7))
    found = answer.second_domain
    assert (found.source, answer.second_domain_reason) == (other, None)
    assert found.taken.divergence_bits > 0.9 > 0.1 > found.taken.median_divergence_bits
    assert found.taken.files == 5
    assert 0.1 < found.taken.bytes_share < 0.12
    assert found.tokens > 1900
    assert set(answer.before.loss) == set(answer.after.loss) == {str(texts), other}
    assert answer.loss_increase[other].low > 1 > answer.loss_increase[str(texts)].mean
    assert any(f"on {other} and by" in words for words in answer.warnings)
    assert not any("unseen" in words for words in answer.warnings)
    assert of_file(checkpoint.parent / "smaller" / "prune.json", Pruned) == answer
    said = capsys.readouterr().err
    assert f"{other} is left out of the calibration and scored as the second text" in said
    assert "--also names another" in said


def test_the_digest_is_of_what_calibrated(checkpoint, texts, tmp_path):
    answer = prune(checkpoint, texts)
    (texts / "other.txt").rename(tmp_path / "other.txt")
    named = prune(checkpoint, texts, also=tmp_path / "other.txt", out=tmp_path / "named")
    assert named.calibration == answer.calibration
    assert named.second_domain.taken is None
    assert (named.second_domain.digest, named.kept) == (answer.second_domain.digest, answer.kept)
    assert [*named.loss_increase.values()] == [*answer.loss_increase.values()]


@pytest.mark.parametrize(
    "settings", [{"layer_by_layer": True}, {"sequential": True}, {"keep": None, "total_parameters": 9000}], ids=str
)
def test_other_ways_to_prune_take_the_same_file(checkpoint, texts, settings):
    answer = prune(checkpoint, texts, **settings)
    assert answer.second_domain.source == str(texts / "other.txt")
    assert answer.unscored_experts == ((1, 4), (1, 5), (1, 6), (1, 7))


def test_a_comparison_takes_it_and_shows_it(checkpoint, texts, capsys):
    words = ["prune", str(checkpoint), "--compare", "reap", "--strengths", ".5", "--calibrate", str(texts)]
    assert main([*words, "--out", str(checkpoint.parent / "compared")]) == 0
    answer = json.loads((checkpoint.parent / "compared" / "compare.json").read_text())
    assert answer["second_domain"]["source"] == str(texts / "other.txt")
    assert len(answer["points"][0]["unscored_experts"]) == 4
    assert (
        f"{texts / 'other.txt'}, the file of the calibration text that differs most (1.00 bits"
        in capsys.readouterr().out
    )


def test_a_split_takes_it_and_shows_it(tmp_path, texts, capsys):
    words = ["prune", str(saved(with_clusters()[0], tmp_path / "dense")), "--split-experts", "8", "--always", "1"]
    assert main([*words, "--calibrate", str(texts), "--out", str(tmp_path / "split")]) == 0
    shown = capsys.readouterr().out
    assert f"{texts / 'other.txt'}, the file of the calibration text that differs most (1.00 bits; median" in shown
    assert "second text    neurons" in shown


def test_a_recovery_does_not_learn_it(checkpoint, texts, tmp_path):
    settings = PruneSettings(
        checkpoint=checkpoint, keep=0.5, calibrate=(str(texts),), out=tmp_path / "out", recover=512
    )
    work = opened(settings, (settings.ask,), tmp_path / "home")
    scored = work.second.windows
    assert scored.source == str(texts / "other.txt")
    read = {split: bytes(work.text.tokens(split).astype(np.uint8)) for split in ("train", "validation", "test")}
    assert len(read["train"]) > 10_000
    assert not any(letter in tokens for letter in SECOND.encode() for tokens in read.values())
    assert {chr(token) for token in np.unique(scored.ids_WS1)} <= {*SECOND, "\0"}


def test_a_recovery_says_it_beside_what_was_won_back(checkpoint, texts, monkeypatch):
    monkeypatch.setattr(recovered, "pick_threads", lambda wanted: 1)
    monkeypatch.setattr(recovered, "LEAST_STEPS", 1)
    answer = prune(checkpoint, texts, recover=512)
    assert set(answer.recovery.won_back) == {str(texts), str(texts / "other.txt")}
    assert answer.second_domain.taken.files == 5


def test_the_same_command_takes_the_same_file_and_another_text_is_another_command(
    checkpoint, texts, tmp_path, monkeypatch
):
    settings = PruneSettings(checkpoint=checkpoint, keep=0.5, calibrate=(str(texts),), out=tmp_path / "out")

    def key() -> str:
        return key_of(settings, opened(settings, (settings.ask,)).texts)

    first = key()
    assert key() == first
    monkeypatch.chdir(texts)
    for again in (".", f"../{texts.name}"):
        settings = replace(settings, calibrate=(again,))
        assert key() == first
    text_of(texts / "other.txt", SECOND, letters=2300)
    assert key() != first


def test_stopped_it_takes_the_same_file_and_goes_on(checkpoint, texts, monkeypatch, capsys):
    whole = prune(checkpoint, texts, sequential=True, out=checkpoint.parent / "whole one")

    kept = Passage.put_stream

    def stopping(*given) -> None:
        kept(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Passage, "put_stream", stopping)
        with pytest.raises(KeyboardInterrupt):
            prune(checkpoint, texts, sequential=True)
    assert [path.name for path in checkpoint.parent.glob(".smaller.*")] == [".smaller.unfinished"]
    capsys.readouterr()
    again = prune(checkpoint, texts, sequential=True)
    assert "what another command has found" not in capsys.readouterr().err
    assert (again.second_domain, again.out.digest) == (whole.second_domain, whole.out.digest)


@pytest.mark.parametrize(
    ("lengths", "why"),
    [
        ([4000], "is one file"),
        ([4000, 4100], "of {} with its 2 files none has both 64 tokens, which is 2 windows, and at most a quarter"),
        ([10] * 40, "of {} with its 40 files none has both 64 tokens"),
    ],
)
def test_where_no_file_can_be_left_out_the_reason_is_said(checkpoint, tmp_path, lengths, why, capsys):
    for number, letters in enumerate(lengths):
        text_of(tmp_path / "some" / f"{number}.txt", FIRST, letters=letters)
    answer = prune(checkpoint, tmp_path / "some")
    assert answer.second_domain is None
    assert answer.second_domain_reason.startswith("no second text was given, and ")
    assert why.format(tmp_path / "some") in answer.second_domain_reason
    said = f"{answer.second_domain_reason}: what the calibration text does not show may have suffered unseen"
    assert said in answer.warnings
    assert "left out" not in capsys.readouterr().err


def test_neighbours_of_a_file_that_is_named_are_not_read(checkpoint, texts):
    answer = prune(checkpoint, texts / "0.txt")
    assert answer.second_domain is None
    assert "0.txt is one file" in answer.second_domain_reason


def test_a_file_that_cannot_be_read_alone_stays_in_the_calibration(checkpoint, texts, monkeypatch):
    read = second.read_windows

    def refusing(file, *given, **sizes):
        if file.sources == (str(texts / "other.txt"),):
            raise UserError("its tokens are fewer than they seemed")
        return read(file, *given, **sizes)

    monkeypatch.setattr(second, "read_windows", refusing)
    answer = prune(checkpoint, texts)
    assert answer.second_domain.source in [str(texts / f"{number}.txt") for number in range(4)]
    assert answer.unscored_experts == ()
