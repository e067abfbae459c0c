"""The loss in pieces: as near as plain PyTorch, without the logits of a batch; its Triton kernel equals its twin."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from benchmarks.peak_bytes import Peak
from sparsedial.kernels import head, triton_launch

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"


def given(tokens: int, d_model: int, words: int, dtype: torch.dtype = torch.float32):
    make = torch.Generator().manual_seed(0)
    x, table = (torch.randn(rows, d_model, generator=make).to(DEVICE, dtype) for rows in (tokens, words))
    target = torch.randint(words, (tokens,), generator=make).to(DEVICE)
    return x.requires_grad_(), (table / d_model**0.5).requires_grad_(), target


def plain(x: Tensor, table: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy((x @ table.T).float(), target)


@pytest.mark.gpu
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_in_bfloat16_many_pieces_are_at_most_twice_as_far_as_plain_pytorch(monkeypatch, weight):
    """The loss and both gradients, under a weight that comes later."""
    monkeypatch.setattr(head, "PIECE_BYTES", 16 * 2 * 300)
    x, table, target = given(500, 32, 300, torch.bfloat16)

    def found(function, dtype: torch.dtype) -> list[Tensor]:
        leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in (x, table)]
        loss = function(*leaves, target)
        return [loss.detach().double(), *(slope.double() for slope in torch.autograd.grad(weight * loss, leaves))]

    exact = found(plain, torch.float64)
    far, near = (
        [(ours - values).norm() for ours, values in zip(found(function, torch.bfloat16), exact, strict=True)]
        for function in (head.loss_in_pieces, plain)
    )
    assert all(one <= 2 * other + 1e-6 for one, other in zip(far, near, strict=True)), (far, near)


@pytest.mark.parametrize(
    ("tokens", "words", "pieces"), [(8192, 50304, 4), (2668, 50304, 1), (2669, 50304, 2), (1, 9, 1)]
)
def test_pieces_are_as_few_as_there_must_be_and_of_one_size(tokens, words, pieces):
    table = torch.empty(words, 8, dtype=torch.bfloat16, device="meta")
    rows = head.piece_rows(tokens, table)
    found = [min(rows, tokens - first) for first in range(0, tokens, rows)]
    assert len(found) == pieces
    assert max(found) - min(found) < pieces
    assert rows * words * 2 <= head.PIECE_BYTES


def test_weights_of_zero_give_no_loss():
    x, table, target = given(7, 8, 11)
    loss = head.loss_in_pieces(x, table, target, torch.zeros(7, device=DEVICE))
    assert [float(value.abs().max()) for value in (loss.detach(), *torch.autograd.grad(loss, (x, table)))] == [0.0] * 3


def test_a_second_backward_pass_is_an_error():
    x, table, target = given(7, 8, 11)
    loss = head.loss_in_pieces(x, table, target)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.gpu
@pytest.mark.parametrize("learning", [True, False])
@pytest.mark.parametrize("cap", [0.0, 3.0])
@pytest.mark.parametrize(("tokens", "words"), [(3, 5), (2, 4096), (4, 4999), (1, 9000)])
def test_the_triton_kernel_equals_its_twin(monkeypatch, tokens, words, cap, learning):
    """Vocabularies below, at and above a block, not whole ones."""
    triton_head = pytest.importorskip("sparsedial.kernels.triton_head", reason="installed without Triton")
    make = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(tokens, words, generator=make)).to(DEVICE)
    target, share = torch.tensor([words - 1, 0, words // 2, 1][:tokens], device=DEVICE), torch.rand(tokens).to(DEVICE)
    found = []
    monkeypatch.setattr(triton_launch, "available", lambda: False)
    for function in (triton_head.cross_entropy, head.cross_entropy):
        own, each = logits.clone(), torch.full((tokens,), float("nan"), device=DEVICE)
        function(own, target, share if learning else None, each, cap)
        found.append((own, each))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert torch.equal(found[0][0], logits) == (not learning)


def peak_bytes(function, dtype: torch.dtype) -> int:
    """The most bytes at one time of a loss of 8,192 tokens and 50,304 words, beyond what is given and the gradients."""
    with FakeTensorMode():
        x = torch.empty(8192, 2048, dtype=dtype, requires_grad=True)
        table = torch.empty(50304, 2048, dtype=dtype, requires_grad=True)
        target = torch.empty(8192, dtype=torch.long)
        with Peak() as peak:
            function(x, table, target).backward()
    return peak.most_bytes - x.nbytes - table.nbytes


def test_the_logits_of_a_batch_never_exist(monkeypatch):
    """The plain loss holds them in bfloat16 and three times in float32: 5.6 GB. In pieces it is a table's gradient
    in float32, what its last sum adds, and a piece."""
    monkeypatch.setattr(head, "cross_entropy", lambda *_: None)  # in Triton it takes no memory
    table = 50304 * 2048 * 2
    assert peak_bytes(plain, torch.bfloat16) > 4e9
    assert peak_bytes(head.loss_in_pieces, torch.bfloat16) < 2 * table + table + head.PIECE_BYTES + 1e6


def test_a_peak_counts_what_lives_at_one_time():
    with nullcontext() if GPU else FakeTensorMode(), Peak() as peak:
        one = torch.empty(1000, dtype=torch.float32)
        view = one[:10]
        del one, view
        two = torch.empty(500, dtype=torch.float32)
        three = two + 1
    assert (peak.most_bytes, peak.held_bytes) == (4000, 4000)
    assert len(three) == 500
