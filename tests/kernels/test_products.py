"""Products of sizes that are whole tiles, panels and blocks, or a few rows and columns more or less."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from sparsedial.kernels import layers, native

pytestmark = pytest.mark.skipif(native.module is None, reason="the compiled kernels are not installed")

D_MODELS = [1, 12, 16, 33, 47, 64, 253, 264, 505]  # rows of the weights' gradients: tiles of 6 or 12, blocks of 252
WIDTHS = [1, 17, 31, 48, 130]  # columns: panels of 16, alone or in pairs
LENGTHS = [5, 256, 257, 600]  # what a gradient is a sum of: 256 at a time


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_a_dense_layer_and_its_gradients_at_the_ends_of_tiles_panels_and_blocks(tokens, threads):
    torch.set_num_threads(threads)
    make = torch.Generator().manual_seed(tokens)
    for d_model in D_MODELS:
        for width in WIDTHS if d_model > 100 else WIDTHS[:3]:
            sizes = ((1, tokens, d_model), (d_model,), (d_model, 2 * width), (width, d_model))
            given = [torch.randn(size, generator=make) / size[0] ** 0.5 for size in sizes]
            fast = with_gradients(lambda x, norm, w_in, w_out: layers.dense_layer(x, norm, w_in, w_out, 1e-6), given)
            slow = with_gradients(plainly, [tensor.double() for tensor in given])
            for name, one, other in zip(("y", "x", "norm", "w_in", "w_out"), fast, slow, strict=True):
                error = float((one - other).norm() / other.norm().clamp(min=1e-9))
                assert error < 2e-4, f"{name} of d_model {d_model}, width {width}: {error:.1e}"


def plainly(x: torch.Tensor, norm: torch.Tensor, w_in: torch.Tensor, w_out: torch.Tensor) -> torch.Tensor:
    normed = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * norm
    gate, up = (normed @ w_in).chunk(2, dim=-1)
    return x + (functional.silu(gate) * up) @ w_out


def with_gradients(layer, given: list[torch.Tensor]) -> list[torch.Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in given]
    y = layer(*leaves)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), leaves)]
