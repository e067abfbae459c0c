"""Compiled kernels can be set aside for a while, and the layers compute the same without them."""

from __future__ import annotations

import pytest
import torch

from sparsedial.kernels import native
from tests.model.shapes import FAMILIES, shaken

IDS = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_kernels_that_are_set_aside_come_back_and_what_is_computed_is_the_same():
    model, before = shaken(FAMILIES["llama"]), native.usable(torch.ones(3))
    compiled = model(IDS)
    with native.set_aside():
        assert not native.usable(torch.ones(3))
        torch.testing.assert_close(model(IDS), compiled)
    assert native.usable(torch.ones(3)) == before
    with pytest.raises(ValueError, match="broken"), native.set_aside():
        raise ValueError("broken")
    assert native.usable(torch.ones(3)) == before


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
def test_attention_stays_compiled_and_holds_no_scores_of_all_pairs(monkeypatch):
    def refused(*_given: object, **_named: object) -> None:
        raise AssertionError("attention of PyTorch was called")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", refused)
    with native.set_aside(), torch.no_grad():
        shaken(FAMILIES["llama"])(IDS)
