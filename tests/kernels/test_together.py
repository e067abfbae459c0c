"""A sparse layer computes all experts as one dense layer where tokens visit most of them and nothing is learned."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from sparsedial.kernels import layers, native
from sparsedial.machine.timing import measure_in_turn
from sparsedial.model.transformer import Routing, initialise
from sparsedial.shape.shape import Shape
from tests.kernels.test_layers import ONES, ROUTED, SPARSE, assert_equal, shaken, shape_of

pytestmark = pytest.mark.skipif(native.module is None, reason="installed without a C compiler")

TOGETHER = {  # most experts are visited, so that all are computed as one dense layer
    "every expert": {**ROUTED, **ONES, "top_k": 8, "d_expert": 5},
    "every expert, no shared one": {**ROUTED, **ONES, "top_k": 8, "d_expert": 5, "shared_experts": 0},
    "every expert, scaled": {**ROUTED, **ONES, "top_k": 8, "routed_scaling": 2.5},
    "some narrow ones, by pieces": {**ROUTED, "experts": 30, "top_k": 6, "d_expert": 3},
    "many narrow ones": {**ROUTED, **ONES, "experts": 30, "top_k": 20, "d_expert": 3},
    "gates that weigh": {**ROUTED, "top_k": 6},
    "top-p": {**ROUTED, "top_k": 8, "top_p": 0.9},
    "groups": {**ROUTED, "expert_groups": 4, "kept_groups": 3, "top_k": 6},
    "one expert": {**ROUTED, "experts": 1, "top_k": 1},
}


LAYERS = {**SPARSE, **{f"together: {name}": sizes for name, sizes in TOGETHER.items()}}


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_a_sparse_layer_without_a_gradient_equals_its_module(name):
    sizes, threads = LAYERS[name], 1 if name in SPARSE else 2
    most = sizes["top_k"]
    for (sequences, positions), losing in itertools.product([(2, 5), (5, 32), (3, 200)], [True, False]):
        for counts in (None, torch.tensor([[most, most, 1, most, (most + 1) // 2][:sequences]])):
            without_gradient(shape_of(**sizes), (sequences, positions), threads, losing, counts)


def without_gradient(
    shape: Shape, lengths: tuple[int, int], threads: int, losing: bool, top_k_LB: Tensor | None
) -> None:
    block, found = initialise(shape, 0).blocks[0], []
    shaken(block)
    x = torch.randn(*lengths, shape.d_model, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for kernels in (native.module, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "module", kernels)
            weights = {"balance_weight": 0.3, "z_loss_weight": 0.2, "losses": []} if losing else {}
            routing = Routing(**weights, top_k_LB=top_k_LB)
            y = block.feed_forward(x, block.feed_forward_norm_D, 1e-6, routing)
            load = block.feed_forward.load_E.float() / x.numel()
            found.append({"y": y, "load": load, **dict(enumerate(routing.losses or []))})
            block.feed_forward.load_E.zero_()
    torch.set_num_threads(before)
    assert_equal(*found)


def every_expert(experts: int, width: int, d_model: int) -> tuple[list[Tensor], dict[str, object]]:
    """The weights of a layer whose gates are ones, and its sizes with all experts on."""
    make = torch.Generator().manual_seed(0)
    sizes = (d_model,), (d_model, experts), (experts, d_model, 2 * width), (experts, width, d_model)
    weights = [torch.randn(size, generator=make) / size[-1] ** 0.5 for size in sizes]
    routing = {"top_k": experts, "ones": True, "sigmoid": False, "normalize": False, "groups": 1, "kept_groups": 1}
    beside = {"bias_E": None, "load_E": None, "top_k_T": None, "scaling": 1.0, "top_p": 1.0, "eps": 1e-6}
    return weights, {**routing, **beside, "balance_weight": 0.0, "z_loss_weight": 0.0}


@torch.no_grad()
def test_with_all_experts_on_no_router_is_read_and_the_layer_is_the_dense_one():
    (norm, router, w_in, w_out), sizes = every_expert(12, 5, 24)
    x = torch.randn(2, 30, 24, generator=torch.Generator().manual_seed(1))
    router.fill_(float("nan"))
    y, loss = layers.sparse_layer(x, norm, router, w_in, w_out, None, None, **sizes)
    dense_in = torch.cat([half.transpose(0, 1).flatten(1) for half in w_in.chunk(2, 2)], 1)
    expected = layers.dense_layer(x, norm, dense_in, w_out.flatten(0, 1), 1e-6)
    assert loss == 0
    torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_an_expert_that_a_token_does_not_visit_gives_it_nothing_though_all_are_computed():
    (norm, router, w_in, w_out), sizes = every_expert(12, 5, 24)
    x = torch.randn(1, 30, 24, generator=torch.Generator().manual_seed(1))
    router[:, 3] = -1e4  # never chosen, since the rest is positive
    w_in[3] = float("nan")
    sizes["top_k"] = 11
    y, _ = layers.sparse_layer(x.abs(), norm.abs(), router, w_in, w_out, None, None, **sizes)
    assert y.isfinite().all()


@pytest.mark.parametrize(("experts", "top_k"), [(12, 5), (96, 2), (96, 41)])
@torch.no_grad()
def test_of_equal_scores_the_first_experts_are_visited(experts, top_k):
    """Whether they are ranked or picked one by one."""
    (norm, router, w_in, w_out), sizes = every_expert(experts, 5, 24)
    x = torch.randn(1, 30, 24, generator=torch.Generator().manual_seed(1))
    router.zero_()
    router[:, top_k + 1] = 1e4  # the best, since the rest is positive
    visited = [*range(top_k - 1), top_k + 1]
    sizes["top_k"] = top_k
    y, _ = layers.sparse_layer(x.abs(), norm.abs(), router, w_in, w_out, None, None, **sizes)
    dense_in = torch.cat([half.transpose(0, 1).flatten(1) for half in w_in[visited].chunk(2, 2)], 1)
    expected = layers.dense_layer(x.abs(), norm.abs(), dense_in, w_out[visited].flatten(0, 1), 1e-6)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_all_experts_take_about_as_long_as_the_dense_layer():
    """Rows that were moved to 96 narrow experts and back took five times as long."""
    (norm, router, w_in, w_out), sizes = every_expert(96, 4, 64)
    dense_in, dense_out = w_in.transpose(0, 1).flatten(1).contiguous(), w_out.flatten(0, 1)
    x = torch.randn(1, 256, 64)
    calls = {
        "experts": lambda: layers.sparse_layer(x, norm, router, w_in, w_out, None, None, **sizes),
        "dense": lambda: layers.dense_layer(x, norm, dense_in, dense_out, 1e-6),
    }
    timings = measure_in_turn(calls, rounds=9, round_seconds=0.01)
    assert timings["experts"].low_seconds < 2 * timings["dense"].low_seconds
