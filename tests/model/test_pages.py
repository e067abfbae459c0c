"""Weights in large pages: one block, and the same model."""

from __future__ import annotations

import copy
import errno
import itertools
import mmap
from dataclasses import replace

import pytest
import torch

from sparsedial.model.checkpoint import empty_model, model_of, save_checkpoint
from sparsedial.model.pages import LINE_BYTES, PAGE_BYTES, empty_in_large_pages, large_block, put_in_large_pages
from sparsedial.model.weights import stream_of
from sparsedial.shape.shape import Shape
from tests.model.shapes import shaken

LARGE = Shape(
    layers=2, d_model=128, heads=4, kv_heads=2, head_dim=32, d_ff=1024, vocab_size=2048, context=16, experts=4, top_k=2,
    d_expert=64, dense_layers=1, tied_embeddings=False,
)  # fmt: skip
linux = pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system has no large pages to ask for")


@linux
def test_all_weights_of_a_loaded_model_lie_in_one_block_of_whole_pages():
    model = empty_model(LARGE, torch.float32)
    put_in_large_pages(model)
    weights = list(model.parameters())
    assert len({weight.untyped_storage().data_ptr() for weight in weights}) == 1
    assert min(weight.data_ptr() for weight in weights) % PAGE_BYTES == 0
    assert all(weight.data_ptr() % LINE_BYTES == 0 for weight in weights)
    ranges = sorted((weight.data_ptr(), weight.data_ptr() + weight.nbytes) for weight in weights)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(ranges))


@linux
@pytest.mark.parametrize("tied", [False, True])
def test_a_model_in_large_pages_computes_saves_and_copies_as_before(tmp_path, tied):
    whole = shaken(replace(LARGE, tied_embeddings=tied))
    placed = model_of(whole.shape, stream_of(whole))
    ids_BS = torch.arange(32).view(2, 16)
    assert len({weight.untyped_storage().data_ptr() for weight in placed.parameters()}) == 1
    for model in (placed, copy.deepcopy(placed)):
        torch.testing.assert_close(model(ids_BS), whole(ids_BS), rtol=0, atol=0)
    save_checkpoint(placed, tmp_path / "one")
    save_checkpoint(whole, tmp_path / "other")
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "other/model.safetensors").read_bytes()


def test_small_models_and_systems_without_large_pages_stay_as_they_are(monkeypatch):
    assert large_block(PAGE_BYTES - 1) is None
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    model = empty_model(LARGE, torch.float32)
    places = [weight.data_ptr() for weight in model.parameters()]
    put_in_large_pages(model)
    assert [weight.data_ptr() for weight in model.parameters()] == places
    assert empty_in_large_pages((3, PAGE_BYTES), torch.float32).shape == (3, PAGE_BYTES)


@linux
def test_a_kernel_that_refuses_large_pages_is_no_error(monkeypatch):
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", -1)
    assert large_block(PAGE_BYTES) is None


@linux
def test_where_no_block_can_be_mapped_a_model_loads_as_without_large_pages(monkeypatch):
    def refused(*given, **named):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    whole = shaken(LARGE)
    monkeypatch.setattr(mmap, "mmap", refused)
    placed, ids_BS = model_of(whole.shape, stream_of(whole)), torch.arange(32).view(2, 16)
    torch.testing.assert_close(placed(ids_BS), whole(ids_BS), rtol=0, atol=0)
