"""Whose folder it is: files of others stay, a copied folder goes on, a damaged checkpoint is made again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sparsedial.cli.main import main
from sparsedial.store import read_json
from tests.verbs.test_train import words


@pytest.fixture
def trained(corpus: Path, tmp_path: Path, capsys) -> Path:
    """The folder of a training."""
    assert main(words(corpus, tmp_path / "run", "--tokens", "640")) == 0
    capsys.readouterr()
    return tmp_path / "run"


def test_a_folder_of_someone_else_is_not_written_into(corpus, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    for command in (words(corpus, tmp_path, "--tokens", "640"), ["study", str(corpus), "--out", str(tmp_path)]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "holds other files, such as notes.txt" in said
        assert "add --force" in said
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert main(words(corpus, tmp_path, "--tokens", "640", "--force")) == 0
    assert main(words(corpus, tmp_path, "--tokens", "640")) == 0  # it is ours as well now
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_force_overwrites_nothing(corpus, tmp_path, capsys):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "text.json").write_text("mine")
    assert main(words(corpus, tmp_path, "--tokens", "640", "--force")) == 2
    assert "holds a text that is not sparsedial's" in capsys.readouterr().err
    assert (tmp_path / "text" / "text.json").read_text() == "mine"


def test_a_folder_with_nothing_but_a_plan_is_ours(corpus, tmp_path, capsys):
    assert main(["plan", "--flops", "1e18", "--out", str(tmp_path / "plan.json")]) == 0
    assert main(words(corpus, tmp_path, "--tokens", "640")) == 0


def test_an_answer_does_not_replace_a_file_of_someone_else(tmp_path, capsys):
    for name, flag in (("notes.txt", "--out"), ("config.json", "--export")):
        (tmp_path / name).write_text("{}")
        assert main(["plan", "--flops", "1e18", flag, str(tmp_path / name if flag == "--out" else tmp_path)]) == 2
        assert name in capsys.readouterr().err
        assert (tmp_path / name).read_text() == "{}"


def test_a_copy_that_followed_the_link_goes_on_as_the_folder_did(trained, corpus, tmp_path, capsys):
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    assert (copy / "checkpoint").is_dir()
    assert not (copy / "checkpoint").is_symlink()
    assert main(words(corpus, copy, "--tokens", "1280")) == 0
    assert (copy / "checkpoint").is_symlink()
    assert len(list((copy / "runs").glob("*/checkpoint"))) == 2


@pytest.mark.parametrize("change", ["weights", "more", "file"])
def test_what_is_in_the_links_place_and_no_copy_is_refused_before_training(trained, corpus, capsys, change):
    link = trained / "checkpoint"
    run = link.resolve()
    link.unlink()
    if change == "file":
        link.write_text("mine")
    else:
        shutil.copytree(run, link)
        changed = link / ("model.safetensors" if change == "weights" else "my notes")
        changed.write_bytes(b"mine")
    assert main(words(corpus, trained, "--tokens", "1280")) == 2
    said = capsys.readouterr().err
    assert "is not a link to a run's checkpoint" in said
    assert "move it away" in said
    assert len(list(trained.glob("runs/*/run.json"))) == 1


def test_a_checkpoint_that_was_cut_short_is_made_again(trained, corpus, capsys):
    weights = trained / "checkpoint" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    assert main(words(corpus, trained, "--tokens", "640")) == 0
    assert (trained / "checkpoint" / "model.safetensors").read_bytes() == whole


def test_a_single_run_is_too_few_for_a_law(corpus, tmp_path, capsys):
    assert main(words(corpus, tmp_path, "--tokens", "1280")) == 0
    assert main(["fit", str(tmp_path)]) == 0
    assert "1 run is too few" in capsys.readouterr().out


def test_settings_of_a_training_say_whether_its_plan_was_edited(trained):
    assert read_json(trained / "settings.json")["plan_edited"] is False


def test_a_run_that_takes_the_place_of_another_is_said(trained, corpus, capsys):
    before = trained / (trained / "checkpoint").readlink()
    assert main(words(corpus, trained, "--tokens", "640")) == 0
    assert "is now this run's" not in capsys.readouterr().err
    assert main(words(corpus, trained, "--tokens", "1280")) == 0
    assert f"is now this run's; the earlier run's is {before}" in capsys.readouterr().err
    assert before.is_dir()
