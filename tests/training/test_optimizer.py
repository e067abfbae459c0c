"""The compiled AdamW is PyTorch's."""

from __future__ import annotations

import pytest
import torch

from sparsedial.kernels import native
from sparsedial.model.transformer import initialise
from sparsedial.shape.ladder import Ladder
from sparsedial.training.optimizer import CompiledAdamW, clip_gradient, make_optimizer
from sparsedial.training.recipe import Recipe

RECIPE = Recipe(learning_rate=0.01, steps=40, batch=4, context=16)


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_adamw_equals_pytorchs(monkeypatch, threads):
    shape = Ladder(vocab_size=64, context=16).shape(16, 8)
    models = [initialise(shape, 0) for _ in range(2)]
    ours = make_optimizer(models[0], RECIPE)
    assert isinstance(ours, CompiledAdamW)
    monkeypatch.setattr(native, "module", None)
    theirs = make_optimizer(models[1], RECIPE)
    assert isinstance(theirs, torch.optim.AdamW)
    monkeypatch.undo()
    make, before = torch.Generator().manual_seed(1), torch.get_num_threads()
    torch.set_num_threads(threads)
    for step in range(5):
        for pair in zip(models[0].parameters(), models[1].parameters(), strict=True):
            gradient = torch.randn(pair[0].shape, generator=make)
            for parameter in pair:
                parameter.grad = gradient.clone()
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 0.01 / (step + 1)
            optimizer.step()
    torch.set_num_threads(before)
    for (name, mine), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_gradients_are_clipped_to_the_norm():
    parameters = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 1030).t())]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 2.0)
    assert clip_gradient(parameters, 1.0) == pytest.approx(2 * 2063**0.5)
    norm = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None]).norm()
    assert float(norm) == pytest.approx(1.0, rel=1e-5)
