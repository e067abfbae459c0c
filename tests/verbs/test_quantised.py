"""Quantised folders as a user meets them: every command that reads weights names them as such, or reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import sparsedial
from sparsedial.cli.main import main
from tests.model.quantised import WAYS, quantise, say
from tests.model.test_stored import quantised
from tests.pruning.planted import saved, with_clusters

COMMANDS = {
    "prune": "prune {folder} --method activation --keep 0.5 --calibrate {text} --out {out}",
    "split": "prune {folder} --split-experts 8 --always 1 --calibrate {text} --out {out}",
    "evaluate": "evaluate {folder} --text {text}",
    "generate": "generate {folder} abc",
    "dial": "dial {folder} --measure --text {text} --settings skip=0",
}

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(with_clusters()[0], tmp_path / "folder")


def typed(command: str, folder: Path, text: str) -> list[str]:
    names = {"folder": str(folder), "text": text, "out": str(folder.parent / "out")}
    return [word.format(**names) for word in COMMANDS[command].split()]


@pytest.mark.parametrize("way", WAYS)
def test_each_command_names_a_quantised_folder_as_such(folder, text, capsys, way):
    quantise(folder, way)
    for command in COMMANDS:
        assert main(typed(command, folder, text)) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"error: {folder}: its weights are quantised by {way.partition(',')[0]}"), command
        assert "which is not read" in said.err
    assert sorted(path.name for path in folder.parent.iterdir()) == ["both.txt", "folder"]


@pytest.mark.parametrize("way", WAYS)
def test_the_names_alone_say_that_a_folder_is_quantised(folder, capsys, way):
    quantise(folder, way, stated=False)
    assert main(["generate", str(folder), "abc"]) == 2
    assert f"error: {folder}: its weights are quantised by " in capsys.readouterr().err


def test_plain_weights_that_are_said_to_be_quantised_are_refused_and_the_way_out_is_named(folder, text, capsys):
    say(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    for command in COMMANDS:
        assert main(typed(command, folder, text)) == 2
        said = capsys.readouterr().err
        assert f"{folder}: its weights are quantised by gptq (4 bits), which is not read" in said
        assert "where they are plain already, take quantization_config out of config.json" in said


def test_plain_weights_with_zeros_are_not_taken_for_quantised_ones(folder):
    """As llm-compressor leaves what it pruned."""
    sparse = {"format": "dense", "sparsity_structure": "2:4", "global_sparsity": 0.5}
    say(folder, quantization_config={"quant_method": "compressed-tensors", "sparsity_config": sparse})
    assert sparsedial.generate(folder, "abc", tokens=2).text


def test_weights_in_blocks_of_8_bits_are_read_by_each_command(folder, text):
    whole = sparsedial.evaluate([str(folder)], text=text).loss
    say(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [4, 4]})
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        tensors[name], tensors[f"{name}_scale_inv"] = quantised(tensors[name] + 1e-9, 4)
    save_file(tensors, folder / "model.safetensors")
    assert sparsedial.evaluate([str(folder)], text=text).loss == pytest.approx(whole, abs=0.02)
    assert sparsedial.generate(folder, "abcdabc", tokens=4, temperature=0).text == "dabc"
    answer = sparsedial.prune(folder, keep=0.5, method="activation", calibrate=text, out=folder.parent / "out")
    assert answer.before.loss[text].loss == pytest.approx(whole, abs=0.1)
    dial = sparsedial.dial(folder, measure=True, text=text, settings="skip=0", context=32)
    assert len(dial.settings) == 2
