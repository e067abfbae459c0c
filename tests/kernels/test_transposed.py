"""Matrices copied from one layout into the other hold what PyTorch's own copy would."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from sparsedial.kernels import native, transposed
from sparsedial.kernels.transposed import copy_values

SIZES = [(1, 1), (1, 7), (7, 1), (16, 16), (17, 33), (40, 5), (130, 48), (0, 3)]
TYPES = [
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float32, torch.bfloat16),
    (torch.bfloat16, torch.float32),
    (torch.float64, torch.float32),
]


def random(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(sum(sizes))).to(dtype)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("into", "of"), TYPES)
@pytest.mark.parametrize("compiled", [True, False])
def test_a_copy_holds_the_values_and_changes_nothing_beside_them(into, of, threads, compiled, monkeypatch):
    """Parts of larger matrices, by rows and by columns, some at a time."""
    if not compiled:
        monkeypatch.setattr(native, "module", None)
    monkeypatch.setattr(transposed, "ROWS", 24)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for (n, k), across, beside in itertools.product(SIZES, [True, False], [0, 3]):
        held = random(k + beside, n + beside, dtype=into)
        values = random(n + beside, k + beside, dtype=of)[:n, :k]
        expected, view = held.clone(), held[:k, :n].t()
        expected[:k, :n] = values.t()
        if across:
            copy_values(view, values)
        else:
            copy_values(view.t(), values.t())
        assert torch.equal(held, expected)
        held.zero_()
        copy_values(view, values.t().contiguous().t())
        assert torch.equal(view, values.to(into))
    torch.set_num_threads(before)


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
def test_the_kernel_copies_what_lies_across_and_pytorch_sees_that_it_changed(monkeypatch):
    called: list[int] = []

    def counted(**given: object) -> None:
        called.append(len(given))
        plain(**given)

    plain = native.module.transpose
    monkeypatch.setattr(native.module, "transpose", counted)
    held, values = torch.zeros(6, 4), random(4, 6)
    version = held._version
    copy_values(held.t(), values)
    assert held._version > version
    assert len(called) == 1
    copy_values(held, values.t().contiguous())
    copy_values(held[0], values[:, 0])
    assert len(called) == 1, "what lies alike"
    with torch.inference_mode():
        inferred = torch.zeros(6, 4)
        copy_values(inferred.t(), values)
    assert torch.equal(inferred, values.t())
