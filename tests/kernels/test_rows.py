"""Norms, heads and products of rows that are read without a gradient equal their readable twins."""

from __future__ import annotations

import pytest
import torch

from sparsedial.kernels import fused, narrow, native
from tests.kernels.test_sparse import distance

pytestmark = pytest.mark.skipif(native.module is None, reason="installed without the compiled kernels")
MAKE = torch.Generator().manual_seed(0)
HEADS, KV_HEADS, POSITIONS = 6, 2, 5


def assert_equals_its_twin(function, *tensors):
    """What a function gives with the compiled kernels is what it gives without them."""
    with torch.no_grad():
        compiled = function(*tensors)
        with native.set_aside():
            plain = function(*tensors)
    for ours, twin in zip(outputs_of(compiled), outputs_of(plain), strict=True):
        assert ours.is_contiguous()
        assert ours.shape == twin.shape
        assert distance(ours, twin) < 1e-6  # NaN fails too


def outputs_of(given):
    return given if isinstance(given, tuple) else (given,)


def assert_learns(function, *tensors):
    """Where something learns, no kernel without a gradient is used."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    sum(output.sum() for output in outputs_of(function(*leaves))).backward()
    assert all(leaf.grad is not None for leaf in leaves)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("width", [3, 16, 37])
def test_a_norm(width, threads):
    torch.set_num_threads(threads)
    x, weight = torch.randn(2, 7, width, generator=MAKE), torch.rand(width, generator=MAKE) + 0.5
    assert_equals_its_twin(lambda x, w: fused.rms_norm(x, w, 1e-6), x, weight)
    assert_learns(lambda x, w: fused.rms_norm(x, w, 1e-6), x, weight)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("head_dim", [6, 16, 40])
def test_heads(head_dim, normed, apart, threads):
    torch.set_num_threads(threads)
    qkv = torch.randn(3, POSITIONS, (HEADS + 2 * KV_HEADS) * head_dim, generator=MAKE)
    places = (3, 1) if apart else ()
    half = torch.rand(*places, POSITIONS, head_dim // 2, generator=MAKE) * 3
    rotary = torch.cat([half.cos(), half.cos()], -1), torch.cat([-half.sin(), half.sin()], -1)
    norms = tuple(torch.rand(head_dim, generator=MAKE) + 0.5 for _ in range(2))

    def by_head(qkv, *norms):
        return fused.by_head(qkv, norms or None, rotary, HEADS, 1e-6)

    assert_equals_its_twin(by_head, qkv, *(norms if normed else ()))
    assert_learns(by_head, qkv, *(norms if normed else ()))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [1, 12, 97, 300, 301])
def test_a_product(rows, threads):
    torch.set_num_threads(threads)
    x, w = torch.randn(1, rows, 700, generator=MAKE), torch.randn(700, 45, generator=MAKE)
    assert_equals_its_twin(narrow.product, x, w)
    assert_learns(narrow.product, x, w)


def test_a_product_in_double_is_in_double():
    x, w = torch.randn(20, 30, generator=MAKE).double(), torch.randn(30, 7, generator=MAKE).double()
    with torch.no_grad():
        assert torch.equal(narrow.product(x, w), x @ w)
