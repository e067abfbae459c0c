"""Weights as files hold them: in blocks of 8 bits, in shards, fused; refused with the list where they do not fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.model.stored import InBlocks, dequantised, stored_in
from sparsedial.shape.shape import Shape
from tests.model.shapes import FAMILIES, LATENT, SMALL, V3, shaken

WIDE = Shape(**SMALL, d_ff=200)  # two blocks of the default size in each feed-forward weight
UP = "model.layers.0.mlp.up_proj.weight"
SCALES = f"{UP}_scale_inv"


def quantised(weight: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """A matrix in 8 bits, and the factor of each block."""
    rows, columns = (-(-size // block) for size in weight.shape)
    scale = torch.empty(rows, columns)
    low = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
    for i in range(rows):
        for j in range(columns):
            place = slice(i * block, (i + 1) * block), slice(j * block, (j + 1) * block)
            scale[i, j] = weight[place].abs().max() / 448
            low[place] = (weight[place] / scale[i, j]).to(torch.float8_e4m3fn)
    return low, scale


def spread(scale: Tensor, size: torch.Size, block: int) -> Tensor:
    """The factor of each value."""
    return scale.repeat_interleave(block, 0).repeat_interleave(block, 1)[: size[0], : size[1]]


def in_eight_bits(shape: Shape, folder: Path, block: int, config: Mapping[str, Any]) -> tuple[dict, dict]:
    """A folder whose projections are in blocks of 8 bits: its tensors, and what they stand for in float32."""
    save_checkpoint(shaken(shape), folder)
    (folder / "sparsedial.json").unlink()
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, "quantization_config": dict(config)}))
    tensors = load_file(folder / "model.safetensors")
    plain = dict(tensors)
    for name in [name for name in tensors if "_proj" in name]:
        low, scale = quantised(tensors[name], block)
        plain[name] = (low.float() * spread(scale, low.shape, block)).contiguous()
        assert ((plain[name] - tensors[name]).abs() <= tensors[name].abs() / 16 + 2**-9 * scale.max()).all(), name
        tensors[name], tensors[f"{name}_scale_inv"] = low, scale
    save_file(tensors, folder / "model.safetensors")
    return tensors, plain


def assert_read_as(folder: Path, plain: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> None:
    """The folder's weights are, bit for bit, those of the same folder with the plain ones."""
    read = load(folder, dtype)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    save_file(plain, folder / "model.safetensors")
    for (name, mine), other in zip(read.named_parameters(), load(folder, dtype).parameters(), strict=True):
        assert torch.equal(mine, other), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_in_blocks_of_eight_bits_are_brought_back(tmp_path: Path, dtype):
    """As DeepSeek-V3 was released: float8 with a factor for every block of 128 by 128, here of 16 by 16."""
    config = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    _, plain = in_eight_bits(FAMILIES["deepseek_v3"], tmp_path / "c", 16, config)
    assert_read_as(tmp_path / "c", plain, dtype)


def test_a_block_is_128_by_128_where_none_is_said(tmp_path: Path):
    _, plain = in_eight_bits(WIDE, tmp_path / "c", 128, {"quant_method": "fp8"})
    assert_read_as(tmp_path / "c", plain)


def test_factors_may_lie_in_another_shard_than_their_weight(tmp_path: Path):
    tensors, plain = in_eight_bits(WIDE, tmp_path / "c", 128, {})
    (tmp_path / "c" / "model.safetensors").unlink()
    files = {name: f"model-0000{1 + name.endswith('_scale_inv')}-of-00002.safetensors" for name in tensors}
    for file in set(files.values()):
        save_file({name: tensor for name, tensor in tensors.items() if files[name] == file}, tmp_path / "c" / file)
    (tmp_path / "c" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert_read_as(tmp_path / "c", plain)


def fused(tensors: Mapping[str, Tensor], layer: int, experts: int) -> dict[str, Tensor]:
    """The experts of a layer in two tensors, as `transformers` 5 holds them."""
    single = f"model.layers.{layer}.mlp.experts"
    ins = [
        torch.cat([tensors[f"{single}.{expert}.{part}_proj.weight"] for part in ("gate", "up")])
        for expert in range(experts)
    ]
    outs = [tensors[f"{single}.{expert}.down_proj.weight"] for expert in range(experts)]
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(single)}
    return rest | {f"{single}.gate_up_proj": torch.stack(ins), f"{single}.down_proj": torch.stack(outs)}


def test_fused_experts_are_read_of_every_layer_and_in_eight_bits(tmp_path: Path):
    """Those of a module of multi-token prediction too."""
    shape = Shape(**LATENT, **V3, mtp_layers=1)
    model, folder = shaken(shape), tmp_path / "c"
    save_checkpoint(model, folder)
    (folder / "sparsedial.json").unlink()
    tensors = load_file(folder / "model.safetensors")
    for layer in (1, 2, 3):
        tensors = fused(tensors, layer, shape.experts)
    save_file(tensors, folder / "model.safetensors")
    for mine, other in zip(model.parameters(), load(folder).parameters(), strict=True):
        assert torch.equal(mine, other)
    plain = dict(tensors)
    for name in [name for name in tensors if tensors[name].dim() == 3]:
        low, scale = map(torch.stack, zip(*(quantised(weight, 16) for weight in tensors[name]), strict=True))
        parts = [part.float() * spread(factors, part.shape, 16) for part, factors in zip(low, scale, strict=True)]
        plain[name], tensors[name], tensors[f"{name}_scale_inv"] = torch.stack(parts), low, scale
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"weight_block_size": [16, 16]}}))
    save_file(tensors, folder / "model.safetensors")
    assert_read_as(folder, plain)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({SCALES: torch.ones(4, 1)}, r"up_proj.weight_scale_inv is \[4, 1\] instead of \[2, 1\]"),
        ({SCALES: torch.ones(1, 1)}, r"up_proj.weight_scale_inv is \[1, 1\] instead of \[2, 1\]"),
        ({SCALES: torch.ones(2, 2)}, r"up_proj.weight_scale_inv is \[2, 2\] instead of \[2, 1\]"),
        ({SCALES: torch.ones(2)}, r"up_proj.weight_scale_inv is \[2\] instead of \[2, 1\]"),
        ({SCALES: torch.tensor(1.0)}, r"up_proj.weight_scale_inv is \[\] instead of \[2, 1\]"),
        ({SCALES: torch.ones(2, 1, dtype=torch.int32)}, "up_proj.weight_scale_inv is I32"),
        ({SCALES: None}, "up_proj.weight is F8_E4M3 without its scales"),
        ({SCALES: torch.full((2, 1), float("nan"))}, "up_proj.weight holds values that are not finite"),
        ({UP: torch.ones(200, 16)}, "up_proj.weight is F32 and has scales"),
        ({UP: torch.ones(200, 16, dtype=torch.int8)}, "up_proj.weight is I8, not a floating-point type"),
        ({"model.layers.7.foo.weight_scale_inv": torch.ones(1, 1)}, "unexpected model.layers.7.foo.weight_scale_inv"),
        (
            {"model.norm.weight": torch.ones(16).to(torch.float8_e4m3fn), "model.norm.weight_scale_inv": torch.ones(1)},
            "model.norm.weight is F8_E4M3 without the two axes of a block",
        ),
    ],
)
def test_factors_that_do_not_fit_their_weight_are_listed(tmp_path: Path, changes, says):
    tensors, _ = in_eight_bits(WIDE, tmp_path / "c", 128, {})
    changed = {name: tensor for name, tensor in {**tensors, **changes}.items() if tensor is not None}
    save_file(changed, tmp_path / "c" / "model.safetensors")
    with pytest.raises(UserError, match=says):
        load(tmp_path / "c")


@pytest.mark.parametrize("size", [[0, 0], [128], "x"])
def test_blocks_of_no_size_are_refused(tmp_path: Path, size):
    in_eight_bits(WIDE, tmp_path / "c", 128, {"weight_block_size": size})
    with pytest.raises(UserError, match="no valid weight_block_size"):
        load(tmp_path / "c")


@pytest.mark.parametrize("rows", [(0, 7), (0, 3), (2, 5), (6, 7), (3, 3)])
def test_rows_are_read_alone_of_a_matrix_and_of_one_of_a_stack(tmp_path: Path, rows):
    values = torch.arange(3 * 7 * 5.0).view(3, 7, 5)
    save_file({"one": values[2].clone(), "stack": values}, tmp_path / "x.safetensors")
    stored = stored_in(tmp_path / "x.safetensors")
    cut = slice(*rows)
    assert torch.equal(stored["one"].cut(rows).read(), values[2, cut])
    for number in range(3):
        assert torch.equal(stored["stack"].cut(rows, number).read(), values[number, cut])


@pytest.mark.parametrize("rows", [(0, 13), (0, 6), (3, 11), (4, 8), (5, 6), (12, 13)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_in_blocks_are_those_of_the_whole_wherever_a_block_begins(tmp_path: Path, rows, dtype):
    make = torch.Generator().manual_seed(0)
    low = torch.randn(2, 13, 10, generator=make).to(torch.float8_e4m3fn)
    factors = torch.rand(2, 4, 3, generator=make)
    save_file({"w": low, "w_scale_inv": factors}, tmp_path / "x.safetensors")
    stored = stored_in(tmp_path / "x.safetensors")
    weight = InBlocks(stored["w"], stored["w_scale_inv"], (4, 4), dtype)
    for number in range(2):
        whole = dequantised(low[number], factors[number], (4, 4), dtype)
        part = weight.cut(rows, number)
        assert torch.equal(part.read(), whole[slice(*rows)])
        first = slice(1, rows[1] - rows[0])
        assert torch.equal(part.cut((1, rows[1] - rows[0])).read(), whole[slice(*rows)][first])
