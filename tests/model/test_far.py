"""A model whose layers stay in their files computes what it computes in memory, and holds one layer at a time."""

from __future__ import annotations

import pytest
import torch

from sparsedial.evaluation.scorer import Scorer
from sparsedial.model import far as far_module
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.model.far import far_model
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.router import Routing
from sparsedial.model.stream import NamedTensor
from tests.model.shapes import FAMILIES, UNEQUAL, shaken

SHAPES = {**FAMILIES, "layers that differ": UNEQUAL}
IDS = torch.randint(64, (3, 17), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SHAPES)
def test_it_computes_the_same(name: str, tmp_path):
    save_checkpoint(shaken(SHAPES[name]), tmp_path / "model")
    checkpoint = read_checkpoint(tmp_path / "model")
    far = far_model(checkpoint.shape, checkpoint.tensors)
    near = load(tmp_path / "model")
    for _ in range(2):
        with torch.no_grad():
            assert torch.equal(far(IDS), near(IDS))
    assert Scorer(far).loss(IDS) == Scorer(near).loss(IDS)
    assert Scorer(far, routing=Routing(losses=[])).loss(IDS) == Scorer(near).loss(IDS)


def test_one_layer_is_held_at_a_time(tmp_path):
    save_checkpoint(shaken(UNEQUAL), tmp_path / "model")
    checkpoint = read_checkpoint(tmp_path / "model")
    held: list[set[int]] = []

    def counted(tensor: NamedTensor) -> NamedTensor:
        def note(values: torch.Tensor) -> torch.Tensor:
            held.append({number for number, block in enumerate(far.blocks) if not next(block.parameters()).is_meta})
            return values

        return tensor.mapped(note) if tensor.name.layer is not None else tensor

    far = far_model(checkpoint.shape, map(counted, checkpoint.tensors))
    assert not held
    with torch.no_grad():
        far(IDS)
    assert held
    assert all(len(layers) == 1 for layers in held)
    assert all(parameter.is_meta for block in far.blocks for parameter in block.parameters())


def test_the_memory_of_each_layer_is_given_back(tmp_path, monkeypatch):
    save_checkpoint(shaken(UNEQUAL), tmp_path / "model")
    checkpoint = read_checkpoint(tmp_path / "model")
    far = far_model(checkpoint.shape, checkpoint.tensors)
    given_back: list[bool] = []

    def note() -> None:
        given_back.append(all(parameter.is_meta for block in far.blocks for parameter in block.parameters()))

    monkeypatch.setattr(far_module, "give_back_memory", note)
    with torch.no_grad():
        far(IDS)
    assert given_back == [True] * UNEQUAL.layers
