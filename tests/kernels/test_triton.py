"""The Triton kernels equal the reference, outputs and each gradient by name: in Triton's interpreter, or on a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparsedial.kernels import triton_tiles
from tests.kernels.test_sparse import SHAPES, assert_equal, assert_near, gradients, some_of, sparse_inputs

triton_sparse = pytest.importorskip("sparsedial.kernels.triton_sparse", reason="installed without Triton")

NAMES = ["x_TD", "w_in_EDH", "w_out_EFD", "gates_TK"]
GPU = torch.cuda.is_available()
MORE = [(50, 24, 20, 5, 3)]  # several blocks of rows and of columns, none of them whole, in groups of 8 and of 7
H100_SHARED_BYTES = 232448  # that a block may ask for. Source: CUDA C++ programming guide, compute capability 9.0
NEAR = {torch.float32: 3e-4, torch.bfloat16: 1e-2}  # by norm, on a GPU: tl.dot rounds float32 to TF32


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    """Memory that a kernel must write holds NaN before."""

    def full_of_nan(make):
        def made(*arguments, **options):
            tensor = make(*arguments, **options)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

        return made

    monkeypatch.setattr(torch.Tensor, "new_empty", full_of_nan(torch.Tensor.new_empty))
    monkeypatch.setattr(torch, "empty_like", full_of_nan(torch.empty_like))


def both(shape, dtype=torch.float32, device="cpu", skip_first=False, some=False):
    """What the kernels give, and what the reference gives in the same type, or in float64 for half of it."""
    from sparsedial.kernels.reference import reference

    x, w_in, w_out, chosen, gates = sparse_inputs(shape, dtype, skip_first, device)
    top_k = some_of(chosen) if some else None

    def run(function, dtype):
        return gradients(
            lambda x, w_in, w_out, gates: function(x, w_in, w_out, chosen, gates, top_k),
            NAMES,
            [tensor.to(dtype) for tensor in (x, w_in, w_out, gates)],
        )

    exact = dtype if dtype == torch.float32 else torch.float64
    return run(triton_sparse.triton_fused, dtype), run(reference, exact)


def test_a_kernel_that_leaves_a_value_unwritten_would_be_found(monkeypatch):
    monkeypatch.setattr(triton_sparse, "_run", lambda *_, **__: None)
    with pytest.raises(AssertionError, match="nan"):
        assert_near(*both(SHAPES[1]), 1.0)


@pytest.mark.skipif(GPU, reason="on a GPU the kernels run themselves")
@pytest.mark.parametrize("skip_first", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, *MORE])
def test_the_kernels_equal_the_reference_in_the_interpreter(shape, skip_first):
    assert_equal(*both(shape, skip_first=skip_first), 2e-5)


@pytest.mark.skipif(GPU, reason="on a GPU the kernels run themselves")
@pytest.mark.parametrize("shape", [*SHAPES, *MORE])
def test_the_kernels_leave_out_what_a_token_does_not_visit_in_the_interpreter(shape):
    assert_equal(*both(shape, some=True), 2e-5)


@pytest.mark.skipif(GPU, reason="on a GPU the kernels run themselves")
def test_half_precision_is_near_the_reference_in_the_interpreter():
    from sparsedial.kernels.reference import reference

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


def test_the_kernels_compile_for_an_h100_and_keep_its_registers():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.gpu_resources", "--few", "--json"]
    root = Path(__file__).parents[2]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=environment)
    rows = json.loads(listed.stdout)["rows"]
    assert {row["kernel"] for row in rows} == {*triton_tiles.ROW_KERNELS, "outer"}
    for row in rows:
        assert row["wgmma"], row
        assert row["shared_bytes"] <= H100_SHARED_BYTES, row
        assert row["spilled_bytes"] <= 64, row


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (10, 0), (12, 0)])
@pytest.mark.parametrize("flops", [1e8, 1e13])
def test_every_gpu_has_tiles_at_one_height_of_blocks(capability, flops):
    tiles = triton_tiles.tiles_for(capability, flops)
    assert set(tiles) == {*triton_tiles.ROW_KERNELS, "outer"}
    assert len({tiles[name].rows for name in triton_tiles.ROW_KERNELS}) == 1
    assert (tiles["outer"].columns == 256) == (capability[0] == 9 and flops > 1e10)


def test_a_layers_tiles_follow_from_its_sizes_and_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    for tokens, expected in ((16384, triton_tiles.LARGE[9]), (64, triton_tiles.SMALL)):
        x_TD, w_out_EFD, chosen_TK = (
            torch.empty(size, device="meta") for size in ((tokens, 2048), (8, 1024, 2048), (tokens, 2))
        )
        assert triton_sparse._tiles(x_TD, w_out_EFD, chosen_TK) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("skip_first", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, *MORE, (512, 256, 128, 16, 4)])
def test_the_kernels_are_near_the_reference_on_a_gpu(monkeypatch, shape, skip_first, some, dtype):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    assert_near(*both(shape, dtype, "cuda", skip_first, some), NEAR[dtype])


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("shape", [*SHAPES, (512, 256, 128, 16, 4)])
def test_grouped_products_are_near_the_reference_on_a_gpu(shape):
    from sparsedial.kernels.reference import reference, torch_grouped

    inputs = sparse_inputs(shape, torch.bfloat16, device="cuda")
    exact = reference(*[tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs])
    assert_near({"output": torch_grouped(*inputs)}, {"output": exact}, NEAR[torch.bfloat16])
