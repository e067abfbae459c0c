"""`study --select`: the shares are selections of the text with its held-out text."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars
import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.records.launch import LaunchSoFar
from sparsedial.records.selection import Selected
from sparsedial.runs.machines.machines import Machines
from sparsedial.selection import reference
from sparsedial.sweep import local_lab
from sparsedial.text.manifest import read_manifest
from sparsedial.text.prepare import open_text, prepare
from sparsedial.verbs.study.kept_selections import kept_selections, whole_selection
from sparsedial.verbs.study.kept_texts import crossed, full_text
from sparsedial.verbs.study.select_method import METHODS, asked_shares, parse_shares
from sparsedial.verbs.study.select_speed import select_seconds
from sparsedial.verbs.study.settings import StudySettings
from tests.machine.test_profile import profile_of
from tests.records.held import of_file


def question(corpus: Path, out: Path, **asked):
    given = {"select": "random", "keep": (1.0, 0.5, 0.25), "device": "cpu", "workers": 1, "batch": 4, "context": 16}
    return StudySettings(text=(str(corpus),), out=out, **{**given, **asked}).question()


def shares(corpus: Path, out: Path, tokenizer: str = "bytes", **asked):
    """The full text and what is trained on shares of it."""
    one = question(corpus, out, tokenizer=tokenizer, **asked)
    selections = kept_selections(one)
    whole = whole_selection(one, selections)
    full = full_text(one, whole)
    machines = Machines("here", LaunchSoFar(kind="local", first=None))
    return full, crossed(one, full, selections, whole, machines)


def test_shares_differ_in_train_text_alone(corpus, tmp_path):
    full, made = shares(corpus, tmp_path / "study", tokenizer="bpe:300")
    assert [text.share.kept for text in made.texts] == [1.0, 0.5, 0.25]
    assert made.texts[0].share.text_digest == full.digest
    assert made.selection_flops == 0
    for text in made.texts[1:]:
        share = text.share
        opened = open_text(Path(share.folder).parent / "texts" / Path(share.folder).name)
        assert (opened.digest, opened.train_tokens) == (share.text_digest, share.train_tokens)
        assert opened.tokenizer.digest == full.tokenizer.digest
        for split in ("validation", "test"):
            assert opened.facts.splits.of(split).sha256 == full.facts.splits.of(split).sha256
        assert share.train_tokens == pytest.approx(share.kept * full.train_tokens, rel=0.2)
        record = of_file(Path(share.folder) / "select.json", Selected)
        assert (record.keep, record.manifest.digest) == (share.kept, share.manifest_digest)
        assert prepare((share.folder,), folder=tmp_path / "read" / str(share.kept)).facts.selection is not None


def test_probes_are_in_every_share(corpus, tmp_path):
    full, made = shares(corpus, tmp_path / "study", probes=0.05, keep=(1.0, 0.5))
    share = made.texts[1].share
    kept = open_text(Path(share.folder).parent / "texts" / Path(share.folder).name)
    assert full.facts.probes is not None
    assert kept.facts.probes is not None
    assert kept.facts.probes.tokens == pytest.approx(0.5 * full.facts.probes.tokens, rel=0.2)


def test_shares_are_selected_once(corpus, tmp_path):
    out = tmp_path / "study"
    _, first = shares(corpus, out)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    _, again = shares(corpus, out)
    assert [text.share for text in again.texts] == [text.share for text in first.texts]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == stamps


def test_a_filter_decides_its_own_share(corpus, tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    for number, path in enumerate(sorted(corpus.glob("*.txt"))):
        (text / path.name).write_text(path.read_text())
        if number % 3:
            (text / f"copy{path.name}").write_text(path.read_text() + " and a few words more")
    _, made = shares(text, tmp_path / "study", select="duplicates", keep=())
    assert len(made.texts) == 2
    assert made.texts[1].share.kept < 0.75
    with pytest.raises(UserError, match="nothing was left out"):
        shares(corpus, tmp_path / "clean", select="duplicates", keep=())


def test_no_share_and_not_the_full_text_holds_copies_of_held_out_text(corpus, tmp_path):
    """The study trains on `shares/full`, which keeps all else, and scores on the same held-out text."""
    text = tmp_path / "text"
    shutil.copytree(corpus, text)
    splits = read_manifest(
        kept_selections(question(corpus, tmp_path / "first"))[0].folder / "documents.parquet"
    ).collect()
    held_out = splits.filter(polars.col("split") == "test")["source"][0]
    (text / "zz.txt").write_text((text / Path(held_out).name).read_text() + " and a few words more")
    full, made = shares(text, tmp_path / "study", keep=(1.0, 0.5))
    all_of_it = made.texts[0].share
    assert all_of_it.folder == str((tmp_path / "study").resolve() / "shares" / "full")
    assert (all_of_it.text_digest, all_of_it.train_tokens) == (full.digest, full.train_tokens)
    manifest = read_manifest(Path(all_of_it.folder) / "documents.parquet").collect()
    assert manifest.filter(~polars.col("kept") & (polars.col("split") == "train"))["source"].to_list() == ["zz.txt"]
    plain = prepare((str(text),), folder=tmp_path / "plain")
    assert full.train_tokens < plain.train_tokens
    for split in ("validation", "test"):
        assert full.facts.splits.of(split).sha256 == plain.facts.splits.of(split).sha256


def test_a_share_too_small_to_train_on_is_refused(corpus, tmp_path):
    with pytest.raises(UserError, match="too few to train on: at least 128,064 are needed"):
        shares(corpus, tmp_path / "study", keep=(1.0, 0.01), batch=2000, context=64)


def test_every_method_is_one_of_selects():
    assert {"duplicates", "random", "reference-loss", "reference-loss:middle", "gopher"} <= set(METHODS)
    assert METHODS["reference-loss:high"].side == "high"
    assert asked_shares("random", ()) == (0.5, 0.25)
    assert asked_shares("gopher", ()) == (None,)
    assert asked_shares("gopher", (1.0, 0.5)) == (0.5,)
    assert parse_shares("1,.5,25%") == parse_shares((0.5, 0.25)) == (1.0, 0.5, 0.25)


@pytest.mark.parametrize("slow", ["reference-loss", "gopher"])
def test_the_time_of_a_selection_is_measured_for_its_method(corpus, tmp_path, monkeypatch, slow):
    monkeypatch.setattr(reference, "LEAST_STEPS", 1)
    one = question(corpus, tmp_path)
    full = prepare(one.sources, folder=tmp_path / "text")
    assert select_seconds(METHODS[slow], full, one) > 1.5 * select_seconds(METHODS["random"], full, one) > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--keep", "1,.5"], "--keep: chooses nothing without a method"),
        (["--select", "randm"], "did you mean 'random'?"),
        (["--select", "random", "--keep", "1"], "--keep: leaves nothing out"),
        (["--select", "random", "--keep", "2,.5"], "--keep: 2 is more than all of the text"),
        (["--select", "random", "--keep", "0,.5"], "--keep: 0 is not a positive number"),
        (["--select", "random", "--token-share", "60%"], "--token-share: contradicts --select"),
        (["--select", "random", "--keep", "half"], "--keep: cannot read 'half'"),
    ],
)
def test_bad_settings_are_refused(corpus, tmp_path, capsys, words, says):
    assert main(["study", str(corpus), "--device", "cpu", "--out", str(tmp_path / "out"), *words]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.out == ""
    assert not (tmp_path / "out").exists()


def test_a_selection_is_not_selected_from(corpus, tmp_path):
    sparsedial.select(corpus, out=tmp_path / "kept", keep=0.5, workers=1)
    with pytest.raises(UserError, match="kept"):
        kept_selections(question(tmp_path / "kept", tmp_path / "study"))


def test_a_dry_run_says_runs_and_selects_nothing(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(local_lab, "measure_on", lambda *_: lambda *_: profile_of(0.0))
    words = ["study", str(corpus), "--time", "60m", "--device", "cpu", "--out", str(tmp_path), "--dry-run"]
    assert main([*words, "--select", "random"]) == 0
    assert "36 runs on kept shares of the text" in capsys.readouterr().out
    assert not (tmp_path / "shares").exists()
    plain, with_shares = (
        sparsedial.study(corpus, time=3600, device="cpu", out=tmp_path, dry_run=True, select=method, optimizers="adamw")
        for method in (None, "random")
    )
    assert plain.kept_runs == plain.kept_seconds == plain.select_seconds == 0
    assert with_shares.flops < plain.flops
    assert 0 < with_shares.kept_seconds < with_shares.seconds
