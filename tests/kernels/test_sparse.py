"""Every kernel of the sparse layer equals its readable reference, outputs and each gradient by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.kernels import native
from sparsedial.kernels.sparse import KERNELS, sparse_feed_forward

# tokens, d_model, d_expert, experts, top_k: one token, one expert, every expert, odd sizes
SHAPES = [(1, 8, 4, 4, 1), (7, 12, 8, 5, 2), (33, 16, 16, 8, 8), (64, 9, 7, 3, 2), (20, 8, 8, 1, 1)]


def gradients(function, names: list[str], tensors: list[Tensor], *rest) -> dict[str, Tensor]:
    """The output and the gradient of a weighted sum of it with respect to every named tensor."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    output = function(*leaves, *rest)
    weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device).view_as(output)
    (output * weight).sum().backward()
    return {"output": output.detach(), **{name: leaf.grad for name, leaf in zip(names, leaves, strict=True)}}


def assert_equal(fast: dict[str, Tensor], slow: dict[str, Tensor], tolerance: float) -> None:
    for name, expected in slow.items():
        torch.testing.assert_close(
            fast[name], expected, atol=tolerance, rtol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


def assert_near(
    fast: dict[str, Tensor], slow: dict[str, Tensor], tolerance: float, plain: dict[str, Tensor] | None = None
) -> None:
    """The norm of each difference is at most this share of the expected tensor's, or twice that of plain PyTorch."""
    for name, expected in slow.items():
        most = tolerance if plain is None else max(tolerance, 2 * distance(plain[name], expected))
        far = distance(fast[name], expected)
        assert far <= most, f"{name}: {far:.1e}"  # NaN fails too


def distance(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference over that of what is expected."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def sparse_inputs(shape, dtype=torch.float32, skip_first: bool = False, device: str = "cpu"):
    tokens, d_model, d_expert, experts, top_k = shape
    make = torch.Generator().manual_seed(0)  # the same numbers everywhere
    options = {"generator": make, "dtype": dtype}
    x = torch.randn(tokens, d_model, **options)
    w_in = torch.randn(experts, d_model, 2 * d_expert, **options) / d_model**0.5
    w_out = torch.randn(experts, d_expert, d_model, **options) / d_expert**0.5
    scores = torch.rand(tokens, experts, generator=make)
    if skip_first and experts > top_k:
        scores[:, 0] = -1  # an expert that nobody chose
    chosen = scores.topk(top_k, dim=1).indices
    gates = torch.rand(tokens, top_k, **options)
    return tuple(tensor.to(device) for tensor in (x, w_in, w_out, chosen, gates))


def some_of(chosen: Tensor) -> Tensor:
    """How many of its choices each token visits: some none, some all."""
    make = torch.Generator().manual_seed(1)
    top_k = torch.randint(chosen.shape[1] + 1, (len(chosen),), generator=make)
    top_k[::5], top_k[1::5] = chosen.shape[1], 0
    return top_k.to(chosen.device)


def run(
    kernel: str, x: Tensor, w_in: Tensor, w_out: Tensor, chosen: Tensor, gates: Tensor, top_k: Tensor | None = None
) -> dict[str, Tensor]:
    """What a kernel gives, with the gradients of all that learns."""
    return gradients(
        lambda x, w_in, w_out, gates: sparse_feed_forward(x, w_in, w_out, chosen, gates, kernel, top_k),
        ["x_TD", "w_in_EDH", "w_out_EFD", "gates_TK"],
        [x, w_in, w_out, gates],
    )


@pytest.mark.parametrize("skip_first", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel", [name for name in KERNELS if name not in ("reference", "triton")])
def test_a_sparse_kernel_equals_the_reference(kernel, shape, skip_first):
    inputs = sparse_inputs(shape, skip_first=skip_first)
    assert_equal(run(kernel, *inputs), run("reference", *inputs), 2e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_token_may_visit_fewer_experts_than_it_chose(shape):
    """The reference gives each token what it gives it alone with that many choices."""
    x, w_in, w_out, chosen, gates = sparse_inputs(shape)
    top_k = some_of(chosen)
    together = sparse_feed_forward(x, w_in, w_out, chosen, gates, "reference", top_k)
    for t, k in enumerate(top_k.tolist()):
        row = slice(t, t + 1)
        alone = sparse_feed_forward(x[row], w_in, w_out, chosen[row, :k], gates[row, :k], "reference")
        torch.testing.assert_close(together[row], alone)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel", [name for name in KERNELS if name not in ("reference", "triton")])
def test_a_kernel_leaves_out_what_a_token_does_not_visit(kernel, shape):
    inputs = sparse_inputs(shape)
    top_k = some_of(inputs[3])
    assert_equal(run(kernel, *inputs, top_k), run("reference", *inputs, top_k), 2e-5)


@pytest.mark.parametrize("kernel", ["reference", "compiled", "torch_grouped"])
def test_an_expert_that_no_token_visits_is_not_read(kernel):
    """Whatever it holds, neither output nor gradients see it."""
    x, w_in, w_out, _, gates = sparse_inputs((40, 8, 4, 5, 3))
    chosen = torch.tensor([0, 1, 4]).expand(40, -1).contiguous()
    w_in[4], w_out[4] = float("nan"), float("nan")
    found = run(kernel, x, w_in, w_out, chosen, gates, torch.arange(40) % 3)
    assert all(values.isfinite().all() for values in found.values())
    assert not found["gates_TK"][:, 2].any()


@pytest.mark.parametrize("top_k", [torch.ones(3, dtype=torch.long), torch.ones(12)])
def test_a_number_of_experts_that_fits_no_token_is_refused(top_k):
    with pytest.raises(UserError, match="not an integer for each of 12 tokens"):
        sparse_feed_forward(*sparse_inputs((12, 8, 4, 6, 2)), "auto", top_k)


@pytest.mark.parametrize("kernel", ["compiled", "torch_grouped"])
def test_all_tokens_may_go_to_one_expert(kernel):
    """The others then learn nothing at all."""
    x, w_in, w_out, _, gates = sparse_inputs((16, 8, 4, 4, 1))
    inputs = x, w_in, w_out, torch.full((16, 1), 2), gates
    fast = run(kernel, *inputs)
    assert_equal(fast, run("reference", *inputs), 1e-5)
    assert all(not fast[name][[0, 1, 3]].any() for name in ("w_in_EDH", "w_out_EFD"))


def test_a_second_backward_pass_is_an_error_and_no_wrong_gradient():
    if native.module is None:
        pytest.skip("installed without a C compiler")
    x, w_in, w_out, chosen, gates = sparse_inputs((5, 4, 4, 3, 2))
    x.requires_grad_()
    output = sparse_feed_forward(x, w_in, w_out, chosen, gates, "compiled").sum()
    output.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernel", ["compiled", "torch_grouped"])
def test_half_precision_is_at_most_twice_as_far_from_float64_as_plain_pytorch(kernel, dtype):
    """The output and each gradient, one expert without a token."""
    inputs = sparse_inputs((64, 32, 16, 8, 2), torch.float64, skip_first=True)
    low = [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in inputs]
    exact = run("reference", *[tensor.double() if tensor.is_floating_point() else tensor for tensor in low])
    plain, fast = run("reference", *low), run(kernel, *low)
    for name, values in exact.items():
        far, near = ((found[name].double() - values).abs().max() for found in (fast, plain))
        assert far <= 2 * near, name


def test_an_unknown_kernel_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="compild"):
        sparse_feed_forward(*sparse_inputs(SHAPES[0]), "compild")


CHANGES = {
    "an expert beyond the last": {"chosen": lambda chosen: torch.full_like(chosen, 10**6)},
    "an expert before the first": {"chosen": lambda chosen: chosen - 10},
    "too few gates": {"gates": lambda gates: gates[:-1]},
    "too few choices": {"chosen": lambda chosen: chosen[:, :1]},
    "tokens of another width": {"x": lambda x: x[:, :-1]},
    "experts of two widths": {"w_out": lambda w_out: w_out[:, :-1]},
    "fewer experts behind than before": {"w_out": lambda w_out: w_out[:-1]},
    "sequences instead of tokens": {"x": lambda x: x[None]},
}


@pytest.mark.parametrize("kernel", ["auto", "reference", "torch_grouped"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_is_refused_before_any_kernel_reads_it(change, kernel):
    inputs = dict(zip(("x", "w_in", "w_out", "chosen", "gates"), sparse_inputs((12, 8, 4, 6, 2)), strict=True))
    for name, changed in CHANGES[change].items():
        inputs[name] = changed(inputs[name])
    with pytest.raises(UserError, match=r"do not fit|lies outside 0\.\.5"):
        sparse_feed_forward(*inputs.values(), kernel)


@pytest.mark.parametrize("kernel", ["auto", "compiled", "torch_grouped"])
def test_no_tokens_give_no_rows(kernel):
    x, w_in, w_out, chosen, gates = sparse_inputs((12, 8, 4, 6, 2))
    assert sparse_feed_forward(x[:0], w_in, w_out, chosen[:0], gates[:0], kernel).shape == (0, 8)
