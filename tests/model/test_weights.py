"""A model's weights under their canonical names: those that its Shape says, and all of its memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparsedial.model.transformer import Transformer
from sparsedial.model.weights import stream_of, views_of
from sparsedial.shape.tensors import tensor_sizes
from tests.model.shapes import FAMILIES, UNEQUAL

SHAPES = {
    **{name: replace(shape, mtp_layers=1) for name, shape in FAMILIES.items()},
    "biases": replace(FAMILIES["olmoe"], attention_bias=True),
    "layers that differ": UNEQUAL,
}


@pytest.mark.parametrize("case", SHAPES)
def test_a_model_has_the_tensors_that_its_shape_says_in_that_order(case):
    stream = stream_of(Transformer(SHAPES[case]))
    assert [(tensor.name, tensor.size) for tensor in stream] == list(tensor_sizes(SHAPES[case]).items())
    for tensor in stream:
        assert tuple(tensor.values().shape) == tensor.size


@pytest.mark.parametrize("case", SHAPES)
def test_the_views_hold_each_weight_once(case):
    model = Transformer(SHAPES[case])
    weights = [*model.parameters(), *(layer.bias_E for layer in model.sparse_feed_forwards if layer.bias_E is not None)]
    with torch.no_grad():
        for weight in weights:
            weight.zero_()
        for view in views_of(model).values():
            view.add_(1)
    for weight in weights:
        assert (weight == 1).all()
