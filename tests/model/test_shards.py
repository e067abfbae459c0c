"""Files of weights, filled tensor by tensor: the bytes that safetensors itself writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparsedial.model.shards import write_weights
from sparsedial.model.stream import NamedTensor
from sparsedial.shape.tensors import Name

LOW = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu]
TYPES = [torch.bfloat16, torch.float32, torch.float64, torch.float16, *LOW]
TENSORS = {
    f"{name}.{number}": torch.randn(number + 1, 3, generator=torch.Generator().manual_seed(number)).to(dtype)
    for name in ("model.layers.10", "model.layers.2", "a")
    for number, dtype in enumerate(TYPES)
}


def named(tensors: dict[str, Tensor]) -> dict[str, NamedTensor]:
    return {
        name: NamedTensor(
            name=Name(name), size=tuple(values.shape), dtype=values.dtype, origin="a test", values=lambda v=values: v
        )
        for name, values in tensors.items()
    }


@pytest.mark.parametrize("transposed", [False, True])
def test_a_file_has_the_bytes_of_the_librarys(tmp_path: Path, transposed):
    tensors = {name: values.t() if transposed else values for name, values in TENSORS.items()}
    write_weights(named(tensors), tensors, tmp_path, 1e9)
    contiguous = {name: values.contiguous() for name, values in tensors.items()}
    save_file(contiguous, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


@pytest.mark.parametrize("shard_bytes", [1, 100, 1e9])
def test_the_order_of_fetching_changes_no_byte(tmp_path: Path, shard_bytes):
    orders = {"forth": list(TENSORS), "back": list(reversed(TENSORS))}
    for folder, order in orders.items():
        (tmp_path / folder).mkdir()
        write_weights(named(TENSORS), order, tmp_path / folder, shard_bytes)
    forth, back = ({file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()} for folder in orders)
    assert forth == back


def test_shards_hold_all_tensors_where_the_index_says(tmp_path: Path):
    write_weights(named(TENSORS), TENSORS, tmp_path, 100)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(values.nbytes for values in TENSORS.values())
    assert list(index["weight_map"]) == list(TENSORS)
    for file in set(index["weight_map"].values()):
        held = load_file(tmp_path / file)
        assert {name for name, home in index["weight_map"].items() if home == file} == set(held)
        assert sum(values.nbytes for values in held.values()) <= 100 or len(held) == 1
        for name, values in held.items():
            assert torch.equal(values.view(torch.uint8), TENSORS[name].view(torch.uint8))


@pytest.mark.parametrize("values", [torch.zeros(3, 2), torch.zeros(2, 3).half()])
def test_values_that_are_not_as_announced_are_refused(tmp_path: Path, values):
    tensors = named({"x": torch.zeros(2, 3)})
    tensors["x"] = tensors["x"].mapped(lambda _: values)
    with pytest.raises(ValueError, match="announced"):
        write_weights(tensors, tensors, tmp_path, 1e9)
