"""Compiled kernels can be set aside for a while, and the layers compute the same without them."""

from __future__ import annotations

import pytest
import torch

from sparsedial.kernels import native
from tests.model.shapes import FAMILIES, shaken

IDS = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_kernels_that_are_set_aside_come_back_and_what_is_computed_is_the_same():
    model, before = shaken(FAMILIES["llama"]), native.module
    compiled = model(IDS)
    with native.set_aside():
        assert not native.usable(torch.ones(3))
        torch.testing.assert_close(model(IDS), compiled)
    assert native.module is before
    with pytest.raises(ValueError, match="broken"), native.set_aside():
        raise ValueError("broken")
    assert native.module is before
