"""In float64 `transformers` computes from every smaller folder what we do, nearly to the last digit.

Both bring norms, rotary angles and routers to float32 by themselves, so for the comparison float32 means float64.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from sparsedial.model.checkpoint import model_of, save_checkpoint
from sparsedial.model.reading import read_checkpoint
from sparsedial.pruning.folder import write_pruned
from sparsedial.pruning.kept import Kept
from sparsedial.shape.shape import Shape
from tests.model.shapes import shaken
from tests.model.test_families import FAMILIES, IDS
from tests.pruning import test_experts, test_layers, test_neurons
from tests.pruning.test_weights import choice

SPARSE = {name: test_experts.wide(shape) for name, shape in FAMILIES.items() if shape.experts}


class Doubled(TorchFunctionMode):
    """Computes in float64 wherever float32 is asked for."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function is torch.Tensor.float:
            function = torch.Tensor.double
        args = tuple(torch.float64 if each is torch.float32 else each for each in args)
        named = {name: torch.float64 if each is torch.float32 else each for name, each in (kwargs or {}).items()}
        return function(*args, **named)


@torch.no_grad()
def assert_same(shape: Shape, kept: Kept, folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    save_checkpoint(shaken(shape), folder / "whole")
    (folder / "cut").mkdir()
    write_pruned(folder / "cut", folder / "whole", shape, read_checkpoint(folder / "whole").tensors, kept)
    cut = read_checkpoint(folder / "cut", torch.float64)
    read = [replace(tensor, values=partial(torch.clone, tensor.values())) for tensor in cut.tensors]
    with warnings.catch_warnings(), Doubled():
        warnings.simplefilter("ignore")
        options = {"experts_implementation": "eager"} if shape.experts else {}  # others know no float64
        made = AutoModelForCausalLM.from_pretrained(folder / "cut", dtype=torch.float64, **options)
        theirs = made.eval()(IDS).logits
        ours = model_of(cut.shape, read, torch.float64)(IDS)
    assert ours.dtype == theirs.dtype == torch.float64
    assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


@pytest.mark.parametrize("family", SPARSE)
def test_without_experts(tmp_path: Path, family):
    assert_same(SPARSE[family], test_experts.some(SPARSE[family]), tmp_path)


@pytest.mark.parametrize("family", test_layers.DEEP)
def test_without_layers(tmp_path: Path, family):
    assert_same(test_layers.DEEP[family], test_layers.some(test_layers.DEEP[family]), tmp_path)


@pytest.mark.parametrize("family", test_neurons.WITH_NEURONS)
def test_without_neurons(tmp_path: Path, family):
    assert_same(test_neurons.WITH_NEURONS[family], test_neurons.some(test_neurons.WITH_NEURONS[family]), tmp_path)


@pytest.mark.parametrize("family", ["llama", "qwen3", "deepseek_v3", "qwen2_moe", "mixtral"])
def test_without_weights(tmp_path: Path, family):
    assert_same(FAMILIES[family], choice(shaken(FAMILIES[family]), "wanda").kept, tmp_path)
