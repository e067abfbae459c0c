"""Names and sizes of tensors follow from a Shape: they sum to its count, and are those of the model that is built."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sparsedial.shape.counts import total_parameters
from sparsedial.shape.published import PUBLISHED
from sparsedial.shape.shape import Shape
from sparsedial.shape.tensors import Name, tensor_sizes
from tests.model.shapes import FAMILIES, UNEQUAL

SHAPES = {**FAMILIES, "own": UNEQUAL, "all of a kind": replace(FAMILIES["olmoe"], attention_bias=True)}

BUFFERS = {"routing_bias"}  # parts that are no parameters


@pytest.mark.parametrize(
    "shape", [*(replace(shape, mtp_layers=2) for shape in SHAPES.values()), PUBLISHED["deepseek-v3"]]
)
def test_sizes_sum_to_the_counted_parameters(shape: Shape):
    sizes = tensor_sizes(shape)
    parameters = sum(math.prod(size) for name, size in sizes.items() if name.part not in BUFFERS)
    assert parameters == total_parameters(shape, with_mtp=True)
    buffers = [size for name, size in sizes.items() if name.part in BUFFERS]
    routed = [shape.layer(number) for number in range(shape.layers + shape.mtp_layers) if shape.is_sparse(number)]
    assert buffers == [(layer.experts,) for layer in routed if shape.routing_bias]


def test_names_say_layer_and_expert():
    names = [str(name) for name in tensor_sizes(replace(FAMILIES["glm4_moe, first layer dense"], mtp_layers=1))]
    assert names[:3] == ["embedding", "norm", "layers.0.attention_norm"]
    for name in ("layers.0.feed_forward.gate", "layers.1.experts.7.down", "layers.3.join", "layers.3.routing_bias"):
        assert name in names
    assert str(Name("experts.gate", 3, 5)) == "layers.3.experts.5.gate"
    assert len(set(names)) == len(names)


def test_what_an_expert_has_stays_together():
    names = [name for name in tensor_sizes(FAMILIES["mixtral"]) if name.layer == 1 and name.expert is not None]
    assert [name.expert for name in names] == [expert for expert in range(8) for _ in range(3)]
    assert [name.part for name in names[:3]] == ["experts.gate", "experts.up", "experts.down"]
