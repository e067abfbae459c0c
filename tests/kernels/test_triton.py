"""The Triton kernels equal the reference, outputs and each gradient by name: in Triton's interpreter, or on a GPU."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsedial.kernels import triton_descriptors, triton_tiles
from tests.kernels.test_sparse import (
    SHAPES,
    assert_equal,
    assert_near,
    distance,
    gradients,
    some_of,
    sparse_inputs,
)

triton = pytest.importorskip("triton", reason="installed without Triton")
triton_sparse = pytest.importorskip("sparsedial.kernels.triton_sparse", reason="installed without Triton")
triton_plan = pytest.importorskip("sparsedial.kernels.triton_plan")
gpu_resources = pytest.importorskip("benchmarks.gpu_resources", reason="installed without Triton")

NAMES = ["x_TD", "w_in_EDH", "w_out_EFD", "gates_TK"]
GPU = torch.cuda.is_available()
MORE = [(50, 24, 20, 5, 3)]  # several blocks of rows and of columns, none of them whole, in groups of 8 and of 7
# By norm, on a GPU. Its products cut float32 to TF32: three of them in a row are 2e-3 to 4e-3 off, as a test shows.
NEAR = {torch.float32: 6e-3, torch.bfloat16: 1e-2}


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


def both(shape, dtype=torch.float32, device="cpu", skip_first=False, some=False, plain=False):
    """What the kernels give, and what the reference gives in the same type; for half of it and on a GPU in float64.

    With `plain` also what the reference gives in the same type.
    """
    from sparsedial.kernels.reference import reference

    x, w_in, w_out, chosen, gates = sparse_inputs(shape, dtype, skip_first, device)
    top_k = some_of(chosen) if some else None

    def run(function, dtype):
        return gradients(
            lambda x, w_in, w_out, gates: function(x, w_in, w_out, chosen, gates, top_k),
            NAMES,
            [tensor.to(dtype) for tensor in (x, w_in, w_out, gates)],
        )

    exact = dtype if (dtype, device) == (torch.float32, "cpu") else torch.float64
    found = run(triton_sparse.triton_fused, dtype), run(reference, exact)
    return (*found, run(reference, dtype)) if plain else found


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
@pytest.mark.parametrize("skip_first", [False, True])
def test_weights_read_by_descriptor_give_the_same_in_the_interpreter(monkeypatch, skip_first):
    """Depths are whole blocks, columns are not; an expert's blocks reach beyond its columns."""
    made = []
    real = triton_descriptors.readable

    def readable(*given):
        made.append(real(*given))
        return made[-1]

    monkeypatch.setattr(triton_descriptors, "LEAST_ROWS", 16)
    monkeypatch.setattr(triton_descriptors, "_has_descriptors", lambda _: True)
    monkeypatch.setattr(triton_descriptors, "readable", readable)
    monkeypatch.setattr(triton_sparse, "_tiles", lambda *_: triton_tiles.alike(triton_tiles.Tiles(16, 32, 16)))
    shape = (50, 48, 16, 5, 3)
    assert_equal(*both(shape, skip_first=skip_first), 2e-5)
    assert len(made) == 4
    assert not any(isinstance(each, torch.Tensor) for each in made)


@pytest.mark.parametrize(
    ("size", "turned", "fits"),
    [((2, 64, 128), False, True), ((2, 40, 128), False, False), ((2, 64, 100), False, True),
     ((2, 64, 100), True, False), ((2, 64, 6), False, False)],
)  # fmt: skip
def test_descriptors_need_whole_blocks_of_depth_and_rows_of_sixteen_bytes(size, turned, fits):
    tiles = triton_tiles.Tiles(128, 128, 64)
    assert triton_descriptors.fits(torch.empty(size), tiles, turned) == fits
    assert not triton_descriptors.fits(torch.empty(math.prod(size) + 1)[1:].view(size), tiles, turned)


@pytest.mark.parametrize(("capability", "has"), [((8, 9), False), ((9, 0), True), ((12, 0), True), (None, False)])
def test_descriptors_are_for_nvidias_gpus_from_hopper_on(monkeypatch, capability, has):
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(triton_descriptors, "capability_of", lambda _: capability)
    w_EAB = torch.empty(2, 64, 128)
    large, small = triton_tiles.Tiles(128, 128, 64), triton_tiles.Tiles(64, 64, 64)
    assert (triton_descriptors.readable(w_EAB, large, False) is not w_EAB) == has
    assert triton_descriptors.readable(w_EAB, small, False) is w_EAB


@pytest.mark.skipif(GPU, reason="on a GPU the kernels run themselves")
def test_half_precision_is_near_the_reference_in_the_interpreter():
    from sparsedial.kernels.reference import reference

    inputs = sparse_inputs((20, 16, 8, 4, 2))
    low = [tensor.half() if tensor.is_floating_point() else tensor for tensor in inputs]
    exact = reference(*[tensor.double() if tensor.is_floating_point() else tensor for tensor in low])
    plain, fast = reference(*low).double(), triton_sparse.triton_fused(*low).double()
    assert (fast - exact).abs().max() <= 2 * (plain - exact).abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 16), (40, 3, 7, 16), (150, 2, 70, 16), (90, 2, 3, 128)])
def test_the_plan_by_kernels_is_the_plan_by_sorting(monkeypatch, sizes, some):
    monkeypatch.setattr(triton_plan, "SUMMED", 2)  # counts of more chunks than are added up at a time
    tokens, top_k, experts, block_rows = sizes
    scores = torch.rand(tokens, experts + 1, generator=torch.Generator().manual_seed(0))
    chosen = scores[:, :-1].topk(top_k, dim=1).indices % max(1, experts - 1)  # the last one is chosen by nobody
    chosen = chosen.to("cuda" if GPU else "cpu")
    visited = some_of(chosen) if some else None
    plan = triton_plan.plan_rows(chosen, experts, block_rows, visited)
    found = triton_plan.plan(chosen, experts, block_rows, visited)
    end = int(plan.ends_E[-1])
    assert torch.equal(found.row_of_place_P[:end], plan.row_of_place_P[:end])
    for name in ("start_of_block_B", "expert_of_block_B", "ends_E"):
        assert torch.equal(getattr(found, name), getattr(plan, name)), name


def test_every_row_lies_in_one_block_of_its_expert():
    chosen = torch.randint(7, (40, 3), generator=torch.Generator().manual_seed(0))
    plan = triton_plan.plan_rows(chosen, 8, 16)  # an eighth expert that nobody chose
    seen = []
    for start, expert in zip(plan.start_of_block_B.tolist(), plan.expert_of_block_B.tolist(), strict=True):
        if expert >= 0:
            rows = plan.row_of_place_P[start : min(start + 16, int(plan.ends_E[expert]))].tolist()
            assert all(chosen.flatten()[row] == expert for row in rows)
            seen += rows
    assert sorted(seen) == list(range(120))


RESOURCES = json.loads((Path(__file__).parents[2] / "benchmarks" / "records" / "gpu_resources.json").read_text())
INSTRUCTION_OF = {"90": "wgmma.mma_async", "100": "tcgen05.mma", "gfx942": "v_mfma"}
SPILLS = {  # bytes, of what spills all the same
    ("90", "up", "bf16", False): 8,  # on Hopper weights are read by descriptor, but for odd sizes
    ("100", "up_backward", "fp32", False): 32,  # of small layers
}


def test_every_kernel_with_every_tile_that_ships_fits_every_card():
    """By the record of `benchmarks.gpu_resources --few`, which a change of kernels or tiles makes out of date."""
    held = [
        gpu_resources.Candidate(**{**{name: row[name] for name in ("kernel", "target", "dtype", "described")},
                                   "tiles": triton_tiles.Tiles(**row["tiles"])})
        for row in RESOURCES["rows"]
    ]  # fmt: skip
    assert RESOURCES["kernels"] == gpu_resources.digest()
    assert held == [candidate for target in gpu_resources.TARGETS for candidate in gpu_resources.shipped(target)]
    for row in RESOURCES["rows"]:
        kind = row["target"], row["kernel"], row["dtype"], row["described"]
        assert row["spilled_bytes"] <= SPILLS.get(kind, 0), row
        assert row["shared_bytes"] <= gpu_resources.shared_bytes(row["target"]), row
        assert row["instruction"] == INSTRUCTION_OF.get(row["target"], "mma.sync"), row
        assert row["bulk_loads"] == row["described"], row


def test_a_sample_compiles_now_to_what_the_record_says():
    sample = [
        row
        for row in RESOURCES["rows"]
        if (row["kernel"], row["target"], row["dtype"]) == ("up", "90", "bf16") and row["described"]
    ]
    code = (
        "import json, sys; from benchmarks.gpu_resources import Candidate, Tiles, resources\n"
        "row = json.loads(sys.argv[1])\n"
        "names = ('kernel', 'target', 'dtype', 'described')\n"
        "print(json.dumps(resources(Candidate(tiles=Tiles(**row['tiles']), **{name: row[name] for name in names}))))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", code, json.dumps(sample[0])]
    root = Path(__file__).parents[2]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=environment)
    made = json.loads(found.stdout)
    if triton.__version__ != RESOURCES["triton"]:  # another compiler may need a few registers more or fewer
        made["registers"] = sample[0]["registers"]
    assert made == sample[0]


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (10, 0), (12, 0)])
@pytest.mark.parametrize("flops", [1e8, 1e13])
def test_every_gpu_has_tiles_at_one_height_of_blocks(capability, flops):
    tiles = triton_tiles.tiles_for(capability, flops)
    assert set(tiles) == {*triton_tiles.ROW_KERNELS, "outer"}
    assert len({tiles[name].rows for name in triton_tiles.ROW_KERNELS}) == 1
    assert (tiles["outer"].columns == 256) == (capability[0] in (9, 10) and flops > 1e10)
    assert triton_tiles.tiles_for(None, flops) == triton_tiles.SMALL


def test_a_gpu_of_another_maker_is_not_taken_for_one_of_nvidias(monkeypatch):
    """AMD's MI300 calls itself 9.4."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 4))
    assert triton_tiles.capability_of(torch.device("cuda")) == (9, 4)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert triton_tiles.capability_of(torch.device("cuda")) is None


def test_a_layers_tiles_follow_from_its_sizes_and_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    for tokens, expected in ((16384, triton_tiles.LARGE[9]), (64, triton_tiles.SMALL)):
        x_TD, w_out_EFD, chosen_TK = (
            torch.empty(size, device="meta", dtype=torch.bfloat16)
            for size in ((tokens, 2048), (8, 1024, 2048), (tokens, 2))
        )
        assert triton_sparse._tiles(x_TD, w_out_EFD, chosen_TK) == expected


@pytest.mark.skipif(GPU, reason="on a GPU the kernels run themselves")
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[4], *MORE])
def test_a_gpus_products_of_float32_are_within_their_bound(monkeypatch, shape):
    """The interpreter's, cut to the 11 bits that tensor cores read of each float32; compilers do not round them."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    whole = InterpreterBuilder.create_dot

    def cut(given):
        bits = np.ascontiguousarray(given.data).view(np.uint32) & np.uint32(0xFFFFE000)
        return TensorHandle(bits.view(np.float32), given.dtype)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", lambda self, a, b, *rest: whole(self, cut(a), cut(b), *rest))
    fast, slow = both(shape, some=True)
    assert_near(fast, slow, NEAR[torch.float32])
    assert max(distance(fast[name], slow[name]) for name in slow) > NEAR[torch.float32] / 4


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("skip_first", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, *MORE, (512, 256, 128, 16, 4)])
def test_the_kernels_are_near_the_reference_on_a_gpu(shape, skip_first, some, dtype):
    fast, slow, plain = both(shape, dtype, "cuda", skip_first, some, plain=True)
    assert_near(fast, slow, NEAR[dtype], plain)


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("width", [512, 448])
def test_large_layers_are_near_the_reference_on_a_gpu(width, some):
    """By the tiles of large layers, from Hopper on with descriptors; columns are whole blocks, or not."""
    shape = (4096, 1024, width, 16, 4)
    tokens, d_model, _, _, top_k = shape
    assert 18 * tokens * top_k * d_model * width >= triton_tiles.SMALL_FLOPS
    assert_near(*both(shape, torch.bfloat16, "cuda", True, some), NEAR[torch.bfloat16])


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("shape", [*SHAPES, (512, 256, 128, 16, 4)])
def test_grouped_products_are_near_the_reference_on_a_gpu(shape):
    from sparsedial.kernels.reference import reference, torch_grouped

    inputs = sparse_inputs(shape, torch.bfloat16, device="cuda")
    exact = reference(*[tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs])
    assert_near({"output": torch_grouped(*inputs)}, {"output": exact}, NEAR[torch.bfloat16])
