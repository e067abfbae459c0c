"""`prune --layer-by-layer`: the same choice and the same loss, with one layer in memory at a time."""

from __future__ import annotations

from dataclasses import replace as shape_with
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.shape.counts import total_parameters
from sparsedial.text.tokenizer import byte_tokenizer
from sparsedial.verbs.prune import prunable
from sparsedial.verbs.prune.costs import FAR
from tests.model.shapes import FAMILIES, shaken
from tests.pruning.planted import SECOND, knowing_letters, saved, text_of, with_clusters

SHAPE = shape_with(FAMILIES["qwen3_moe"], vocab_size=256, layers=3)

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_checkpoint(knowing_letters(shaken(SHAPE)), tmp_path / "whole", byte_tokenizer())
    return tmp_path / "whole"


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "reap"},
        {"method": "reap", "sequential": True},
        {"method": "hc-smoe"},
        {"method": "block-influence", "keep": 2 / 3},
        {"method": "naee"},
        {"method": "magnitude"},
        {"method": "wanda"},
        {"method": "sparsegpt"},
        {"keep": None, "total_parameters": 20_000},
    ],
    ids=str,
)
def test_it_chooses_and_measures_the_same(settings, checkpoint, text, tmp_path):
    def run(name: str, far: bool):
        asked = {"keep": 0.5, "calibrate": text, "also": text_of(tmp_path / "second.txt", SECOND), **settings}
        return sparsedial.prune(checkpoint, out=tmp_path / name, layer_by_layer=far, **asked)

    near, far = run("near", False), run("far", True)
    assert far.kept == near.kept
    for before, after in ((far.before, near.before), (far.after, near.after), (far.control, near.control)):
        assert {name: one.loss for name, one in before.loss.items()} == pytest.approx(
            {name: one.loss for name, one in after.loss.items()}, rel=1e-6
        )
    assert far.after.decode_tokens_per_second is None
    assert far.after.decode_tokens_per_second_reason == FAR
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "far")(ids), load(tmp_path / "near")(ids))
    assert replace(far.out, path="") == replace(near.out, path="")


@pytest.mark.parametrize("method", ["activation", "random-neurons"])
def test_neurons_are_the_same_with_one_layer_in_memory(tmp_path, text, method):
    dense = saved(with_clusters(layers=3)[0], tmp_path / "dense")
    asked = {"calibrate": text, "keep": 0.5, "method": method}
    near, far = (sparsedial.prune(dense, out=tmp_path / str(on), layer_by_layer=on, **asked) for on in (False, True))
    assert far.kept == near.kept
    assert far.out.digest == near.out.digest
    for name in ("model.safetensors", "scores.parquet"):
        assert (tmp_path / "True" / name).read_bytes() == (tmp_path / "False" / name).read_bytes()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"keep": None, "speed": 1.5}, "goes without speed, which needs the whole model in memory"),
        ({"recover": 1000.0}, "goes without recover"),
    ],
)
def test_what_needs_the_whole_model_is_refused(settings, says, checkpoint, text, tmp_path):
    with pytest.raises(UserError, match=says):
        sparsedial.prune(
            checkpoint, out=tmp_path / "out", layer_by_layer=True, **{"keep": 0.5, "calibrate": text, **settings}
        )


def test_what_is_held_beside_the_model_counts_too(checkpoint, text, tmp_path, monkeypatch, capsys):
    """One that is cut from it, or all sizes of a comparison."""
    whole = 4 * total_parameters(load(checkpoint).shape)
    words = ["prune", str(checkpoint), "--calibrate", text, "--out", str(tmp_path / "out")]
    one, several = [*words, "--keep", "0.5"], [*words, "--compare", "reap", "--strengths", ".75,.5"]
    for asked, most in ((one, 1.4), (several, 2.2)):
        monkeypatch.setattr(prunable, "machine_bytes", lambda most=most: int(most * whole))
        assert main(asked) == 2
        assert "--checkpoint: the model and what is cut from it take " in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    monkeypatch.setattr(prunable, "machine_bytes", lambda: 2 * whole)
    assert main(one) == 0


def test_a_model_larger_than_memory_names_the_way(checkpoint, text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prunable, "machine_bytes", lambda: 1000)
    words = ["prune", str(checkpoint), "--keep", "0.5", "--calibrate", text, "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "--layer-by-layer holds one layer at a time" in capsys.readouterr().err
    assert main([*words, "--layer-by-layer"]) == 0
