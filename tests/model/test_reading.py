"""A folder as a stream: all of a Shape's tensors in the order of its files, known before a value is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsedial.errors import UserError
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.stored import Stored, stored_in
from sparsedial.model.weights import views_of
from sparsedial.shape.tensors import Name, tensor_sizes
from tests.model.shapes import DENSE, FAMILIES, UNEQUAL, shaken
from tests.model.test_families import theirs_made
from tests.model.test_stored import fused

SHAPES = {**FAMILIES, "layers that differ": UNEQUAL}


def change(folder: Path, changes: dict[str, torch.Tensor | None]) -> None:
    """Put other tensors into a folder's one file, and take those out that are None."""
    (folder / "sparsedial.json").unlink(missing_ok=True)
    tensors = {**load_file(folder / "model.safetensors"), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors")


@pytest.mark.parametrize("case", SHAPES)
@torch.no_grad()
def test_the_stream_of_a_folder_is_that_of_the_model_in_it(tmp_path: Path, case):
    shape = replace(SHAPES[case], mtp_layers=1)
    model = shaken(shape)
    save_checkpoint(model, tmp_path / "c")
    checkpoint = read_checkpoint(tmp_path / "c")
    assert checkpoint.shape == shape
    assert {tensor.name: tensor.size for tensor in checkpoint.tensors} == tensor_sizes(shape)
    views = views_of(model)
    for tensor in checkpoint.tensors:
        assert torch.equal(tensor.values(), views[tensor.name]), tensor.name
        assert tensor.dtype == views[tensor.name].dtype


def test_tensors_come_in_the_order_of_their_files(tmp_path: Path):
    save_checkpoint(shaken(FAMILIES["deepseek_v3"]), tmp_path / "c", shard_bytes=20_000)
    files = sorted((tmp_path / "c").glob("*.safetensors"))
    assert len(files) > 2
    expected = [
        f"{file}: {tensor.name}"
        for file in files
        for tensor in sorted(stored_in(file).values(), key=lambda tensor: tensor.start)
    ]
    assert [tensor.origin for tensor in read_checkpoint(tmp_path / "c").tensors] == expected


def test_fused_experts_come_one_after_the_other(tmp_path: Path):
    save_checkpoint(shaken(FAMILIES["qwen3_moe"]), tmp_path / "c")
    single = {tensor.name: tensor.values() for tensor in read_checkpoint(tmp_path / "c").tensors}
    tensors = before = load_file(tmp_path / "c" / "model.safetensors")
    for layer in range(2):
        tensors = fused(tensors, layer, 8)
    change(tmp_path / "c", dict.fromkeys(before) | tensors)
    stream = read_checkpoint(tmp_path / "c").tensors
    for tensor in stream:
        assert torch.equal(tensor.values(), single[tensor.name])
    routed = [tensor.name for tensor in stream if tensor.origin.endswith("layers.1.mlp.experts.gate_up_proj")]
    assert routed == [Name(f"experts.{part}", 1, expert) for expert in range(8) for part in ("gate", "up")]


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v2, groups and scaling"])
def test_a_folder_of_transformers_gives_all_tensors_of_its_shape(tmp_path: Path, family):
    theirs_made(FAMILIES[family], tmp_path / "theirs")
    checkpoint = read_checkpoint(tmp_path / "theirs")
    assert {tensor.name: tensor.size for tensor in checkpoint.tensors} == tensor_sizes(FAMILIES[family])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model.norm.weight": None}, "missing model.norm.weight"),
        ({"model.layers.1.mlp.extra.weight": torch.zeros(1)}, "unexpected model.layers.1.mlp.extra.weight"),
        ({"model.layers.0.mlp.experts.7.down_proj.weight": None}, "missing .*experts.7.down_proj"),
        ({"model.norm.weight": torch.zeros(3)}, r"model.norm.weight is \[3\] instead of \[16\]"),
        ({"model.layers.0.mlp.experts.gate_up_proj": torch.zeros(8, 15, 16)}, r"\[8, 15, 16\] instead of \[8, 16, 16"),
        ({"model.layers.0.mlp.experts.down_proj": torch.zeros(8, 16, 8)}, "holds again what .*experts.0.down_proj"),
        ({"model.norm.weight": torch.zeros(16, dtype=torch.int8)}, "model.norm.weight is I8"),
    ],
)
def test_what_does_not_fit_is_found_before_a_value_is_read(tmp_path: Path, monkeypatch, changes, says):
    save_checkpoint(shaken(FAMILIES["qwen3_moe"]), tmp_path / "c")
    change(tmp_path / "c", changes)

    def read(stored: Stored) -> torch.Tensor:
        raise AssertionError(f"{stored.name} was read")

    monkeypatch.setattr(Stored, "read", read)
    for reader in (read_checkpoint, load):
        with pytest.raises(UserError, match=says):
            reader(tmp_path / "c")


def test_a_file_that_is_cut_short_meanwhile_is_named(tmp_path: Path):
    save_checkpoint(shaken(DENSE), tmp_path / "c")
    tensors = read_checkpoint(tmp_path / "c").tensors
    file = tmp_path / "c" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"model.safetensors: cut short while it was read"):
        tensors[-1].values()
    file.unlink()
    with pytest.raises(UserError, match=r"model.safetensors: not readable any more"):
        tensors[-1].values()
