"""`prune --fix-setting`: a folder that any program reads as the checkpoint at that setting."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.model.turned import at_setting
from sparsedial.records.prune import FixedSetting
from sparsedial.records.record import plain
from sparsedial.shape.turned import parse_turned
from tests.model.shapes import DENSE, FAMILIES, UNEQUAL, shaken
from tests.model.test_families import CLOSE, IDS, theirs_from, theirs_made
from tests.records.held import of_values

SPARSE = {name: shape for name, shape in FAMILIES.items() if shape.experts}


def fixed(checkpoint: Path, setting: str, **settings) -> FixedSetting:
    found = sparsedial.prune(checkpoint, fix_setting=setting, out=checkpoint.parent / "fixed", **settings)
    assert isinstance(found, FixedSetting)
    return of_values(plain(found), FixedSetting)


@pytest.mark.parametrize("setting", ["k=1", "k=3,skip=1"])
@pytest.mark.parametrize("family", SPARSE)
@torch.no_grad()
def test_transformers_reads_a_fixed_setting_and_computes_the_same(tmp_path: Path, family, setting):
    shape = SPARSE[family]
    shape = replace(shape, layers=shape.layers + 1, mtp_layers=int("deepseek_v3" in family))
    save_checkpoint(shaken(shape), tmp_path / "c")
    answer = fixed(tmp_path / "c", setting)
    expected = at_setting(load(tmp_path / "c"), parse_turned(setting))
    ours = load(tmp_path / "fixed")
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours(IDS), expected(IDS), **CLOSE)
    assert answer.out.read_by == ("transformers", "sparsedial")
    torch.testing.assert_close(theirs_from(tmp_path / "fixed")(IDS).logits, expected(IDS), **CLOSE)


@pytest.mark.parametrize(
    ("family", "setting"), [("qwen2_moe, windows from the second layer on", "skip=0"), ("olmoe", "skip=1")]
)
@torch.no_grad()
def test_a_folder_of_theirs_stays_one_that_they_read(tmp_path: Path, family, setting):
    """Their configuration also lists the attention of each layer."""
    theirs_made(SPARSE[family], tmp_path / "c")
    answer = fixed(tmp_path / "c", setting)
    assert answer.out.family == family.partition(",")[0]
    expected = at_setting(load(tmp_path / "c"), parse_turned(setting))
    torch.testing.assert_close(theirs_from(tmp_path / "fixed")(IDS).logits, expected(IDS), **CLOSE)


@pytest.mark.parametrize(
    ("shape", "setting"),
    [
        (FAMILIES["qwen3_moe"], "k=1/3"),
        (FAMILIES["qwen3_moe"], "k=2,p=0.5"),
        (FAMILIES["deepseek_v3"], "p=0.4,skip=1"),
        (UNEQUAL, "k=1,skip=2"),
    ],
)
@torch.no_grad()
def test_what_no_family_can_express_is_read_here_alone(tmp_path: Path, shape, setting):
    save_checkpoint(shaken(shape), tmp_path / "c")
    answer = fixed(tmp_path / "c", setting)
    assert answer.out.read_by == ("sparsedial",)
    assert answer.out.family == "sparsedial"
    expected = at_setting(load(tmp_path / "c"), parse_turned(setting))
    torch.testing.assert_close(load(tmp_path / "fixed")(IDS), expected(IDS), **CLOSE)


def test_the_number_is_changed_wherever_the_file_has_it_and_nothing_else_is(tmp_path: Path):
    save_checkpoint(shaken(FAMILIES["qwen3_moe"]), tmp_path / "c")
    (tmp_path / "c" / "sparsedial.json").unlink()
    written = json.loads((tmp_path / "c" / "config.json").read_text())
    stated = {
        **written,
        "text_config": {"num_experts_per_tok": 2, "other": 1},
        "sparsedial_trained_for": {"top_k_experts": [1, 2], "by": "step"},
    }
    (tmp_path / "c" / "config.json").write_text(json.dumps(stated))
    (tmp_path / "c" / "dial.json").write_text("{}")
    (tmp_path / "c" / "generation_config.json").write_text("{}")
    answer = fixed(tmp_path / "c", "k=1")
    changed = {"num_experts_per_tok": 1, "text_config": {"num_experts_per_tok": 1, "other": 1}}
    expected = {**written, **changed}  # at one number it has no dial
    assert json.loads((tmp_path / "fixed" / "config.json").read_text()) == expected
    names = {path.name for path in (tmp_path / "fixed").iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors", "sparsedial.json"}
    assert answer.setting.name == "k=1"
    assert answer.checkpoint.digest != answer.out.digest


def test_a_dense_checkpoint_may_lose_layers(tmp_path: Path):
    save_checkpoint(shaken(DENSE), tmp_path / "c")
    answer = fixed(tmp_path / "c", "skip=0")
    assert load(tmp_path / "fixed").shape == replace(DENSE, layers=1)
    assert answer.weight_bytes < sum(4 * parameter.numel() for parameter in load(tmp_path / "c").parameters())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--fix-setting", "k=9"], r"--fix-setting: k=9 lies outside 1..8"),
        (["--fix-setting", "k=1", "--keep", "0.5"], "--fix-setting: goes without --keep"),
        (["--fix-setting", "k=1", "--calibrate", "text"], "--fix-setting: goes without --calibrate"),
        (["--fix-setting", "k=1", "--memory", "1GB"], "--fix-setting: goes without --memory"),
        (["--fix-setting", "k=1", "--method", "wanda"], "--fix-setting: goes without --method"),
        (["--fix-setting", "k=1", "--also", "text"], "--fix-setting: goes without --also"),
        (["--fix-setting", "k=1", "--tasks", "boolq"], "--fix-setting: goes without --tasks"),
        (["--fix-setting", "fast"], "--fix-setting: cannot read 'fast'"),
        (["--calibrate", "text"], "prune: nothing says how much stays; known are --keep, --total-parameters"),
        (["--keep", "0.5"], "prune: 'calibrate' is missing"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, words, says, capsys):
    save_checkpoint(shaken(FAMILIES["qwen3_moe"]), tmp_path / "c")
    assert main(["prune", str(tmp_path / "c"), *words, "--out", str(tmp_path / "fixed")]) == 2
    assert f"error: {says}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_folder_in_the_checkpoint_or_with_files_is_refused(tmp_path: Path):
    save_checkpoint(shaken(FAMILIES["qwen3_moe"]), tmp_path / "c")
    with pytest.raises(UserError, match="lies in the checkpoint"):
        sparsedial.prune(tmp_path / "c", fix_setting="k=1", out=tmp_path / "c" / "fixed")
    (tmp_path / "fixed").mkdir()
    (tmp_path / "fixed" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files"):
        fixed(tmp_path / "c", "k=1")
