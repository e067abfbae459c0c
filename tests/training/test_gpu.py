"""What a training step asks of a GPU, on fake tensors: no wait, types by rule, few casts and launches."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

pytest.importorskip("triton", reason="installed without Triton")

from benchmarks.gpu_counts import DTYPES, SHAPES, as_on_a_gpu, counts_of

WAITS = (DataDependentOutputException, DynamicOutputShapeException)


@pytest.mark.parametrize("with_balance", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.xfail(raises=WAITS, strict=True)
def test_a_training_step_never_waits_for_the_device(name, dtype, with_balance):
    counts_of(SHAPES[name], dtype, with_balance)


@pytest.mark.parametrize("wait", [lambda x: float(x[0]), lambda x: x.nonzero(), lambda x: torch.bincount(x.long())])
def test_an_operation_that_waits_would_be_found(wait):
    with as_on_a_gpu(print), FakeTensorMode(), pytest.raises(WAITS):
        wait(torch.ones(3))


@pytest.mark.xfail(raises=DynamicOutputShapeException, strict=True)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_experts_work_in_the_recipes_type(dtype):
    assert set(counts_of(SHAPES["sparse"], dtype).expert_dtypes) == {dtype}
