"""The Triton kernels equal the reference, outputs and each gradient by name: in Triton's interpreter, or on a GPU."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.test_sparse import SHAPES, assert_equal, gradients, sparse_inputs

triton_sparse = pytest.importorskip("sparsedial.kernels.triton_sparse", reason="installed without Triton")

NAMES = ["x_TD", "w_in_EDH", "w_out_EFD", "gates_TK"]
GPU = torch.cuda.is_available()
MORE = [(50, 24, 20, 6, 3)]  # several blocks of rows and of columns, none of them whole


def both(shape, dtype=torch.float32, device="cpu", skip_first=False):
    from sparsedial.kernels.sparse import reference

    x, w_in, w_out, chosen, gates = (tensor.to(device) for tensor in sparse_inputs(shape, dtype, skip_first))

    def run(function):
        return gradients(
            lambda x, w_in, w_out, gates: function(x, w_in, w_out, chosen, gates), NAMES, [x, w_in, w_out, gates]
        )

    return run(triton_sparse.triton_fused), run(reference)


@pytest.mark.skipif(GPU, reason="on a GPU the kernels run themselves")
@pytest.mark.parametrize("skip_first", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, *MORE])
def test_the_kernels_equal_the_reference_in_the_interpreter(shape, skip_first):
    assert_equal(*both(shape, skip_first=skip_first), 2e-5)


@pytest.mark.skipif(GPU, reason="on a GPU the kernels run themselves")
def test_half_precision_is_near_the_reference_in_the_interpreter():
    from sparsedial.kernels.sparse import reference

    inputs = sparse_inputs((20, 16, 8, 4, 2))
    low = [tensor.half() if tensor.is_floating_point() else tensor for tensor in inputs]
    exact = reference(*[tensor.double() if tensor.is_floating_point() else tensor for tensor in low])
    plain, fast = reference(*low).double(), triton_sparse.triton_fused(*low).double()
    assert (fast - exact).abs().max() <= 2 * (plain - exact).abs().max()


def test_every_row_lies_in_one_block_of_its_expert():
    chosen = torch.randint(7, (40, 3), generator=torch.Generator().manual_seed(0))
    plan = triton_sparse.plan_rows(chosen, 8, 16)  # an eighth expert that nobody chose
    seen = []
    for start, expert in zip(plan.start_of_block_B.tolist(), plan.expert_of_block_B.tolist(), strict=True):
        if expert >= 0:
            rows = plan.row_of_place_P[start : min(start + 16, int(plan.ends_E[expert]))].tolist()
            assert all(chosen.flatten()[row] == expert for row in rows)
            seen += rows
    assert sorted(seen) == list(range(120))


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("skip_first", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, *MORE, (512, 256, 128, 16, 4)])
def test_the_kernels_equal_the_reference_on_a_gpu(shape, skip_first):
    torch.backends.cuda.matmul.allow_tf32 = False
    assert_equal(*both(shape, device="cuda", skip_first=skip_first), 5e-3)  # tl.dot rounds float32 to TF32


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a GPU")
def test_bfloat16_on_a_gpu_is_at_most_twice_as_far_from_float64_as_plain_pytorch():
    from sparsedial.kernels.sparse import reference

    inputs = [tensor.cuda() for tensor in sparse_inputs((512, 256, 128, 16, 4))]
    low = [tensor.bfloat16() if tensor.is_floating_point() else tensor for tensor in inputs]
    exact = reference(*[tensor.double() if tensor.is_floating_point() else tensor for tensor in low])
    plain, fast = reference(*low).double(), triton_sparse.triton_fused(*low).double()
    assert (fast - exact).abs().max() <= 2 * (plain - exact).abs().max()
