"""Every fast path equals its readable twin, outputs and each gradient by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.kernels.attention import attention, reference_attention
from sparsedial.kernels.entropy import cross_entropy
from sparsedial.kernels.norm import norm_rotate, reference_norm_rotate, reference_rms_norm, rms_norm
from sparsedial.kernels.sparse import KERNELS, sparse_feed_forward
from sparsedial.kernels.swiglu import reference_swiglu, swiglu

# tokens, d_model, d_expert, experts, top_k: one token, one expert, every expert, odd sizes
SHAPES = [(1, 8, 4, 4, 1), (7, 12, 8, 5, 2), (33, 16, 16, 8, 8), (64, 9, 7, 3, 2), (20, 8, 8, 1, 1)]


def gradients(function, names: list[str], tensors: list[Tensor], *rest) -> dict[str, Tensor]:
    """The output and the gradient of a weighted sum of it with respect to every named tensor."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    output = function(*leaves, *rest)
    weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    (output * weight).sum().backward()
    return {"output": output.detach(), **{name: leaf.grad for name, leaf in zip(names, leaves, strict=True)}}


def assert_equal(fast: dict[str, Tensor], slow: dict[str, Tensor], tolerance: float) -> None:
    for name, expected in slow.items():
        torch.testing.assert_close(
            fast[name], expected, atol=tolerance, rtol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


def sparse_inputs(shape, dtype=torch.float32, skip_first: bool = False):
    tokens, d_model, d_expert, experts, top_k = shape
    make = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, d_model, generator=make, dtype=dtype)
    w_in = torch.randn(experts, d_model, 2 * d_expert, generator=make, dtype=dtype) / d_model**0.5
    w_out = torch.randn(experts, d_expert, d_model, generator=make, dtype=dtype) / d_expert**0.5
    scores = torch.rand(tokens, experts, generator=make)
    if skip_first and experts > top_k:
        scores[:, 0] = -1  # an expert that nobody chose
    chosen = scores.topk(top_k, dim=1).indices
    gates = torch.rand(tokens, top_k, generator=make, dtype=dtype)
    return x, w_in, w_out, chosen, gates


@pytest.mark.parametrize("skip_first", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel", [name for name in KERNELS if name != "reference"])
def test_a_sparse_kernel_equals_the_reference(kernel, shape, skip_first):
    if kernel == "torch_grouped" and (shape[1] % 4 or shape[2] % 4):
        pytest.skip("PyTorch's grouped product wants rows of 16 bytes")
    x, w_in, w_out, chosen, gates = sparse_inputs(shape, skip_first=skip_first)

    def run(name):
        return gradients(
            lambda x, w_in, w_out, gates: sparse_feed_forward(x, w_in, w_out, chosen, gates, name),
            ["x_TD", "w_in_EDH", "w_out_EFD", "gates_TK"],
            [x, w_in, w_out, gates],
        )

    assert_equal(run(kernel), run("reference"), 2e-5)


def test_all_tokens_may_go_to_one_expert():
    x, w_in, w_out, _, gates = sparse_inputs((16, 8, 4, 4, 1))
    chosen = torch.full((16, 1), 2)
    slow = sparse_feed_forward(x, w_in, w_out, chosen, gates, "reference")
    for kernel in ("compiled", "gapless", "padded"):
        torch.testing.assert_close(
            sparse_feed_forward(x, w_in, w_out, chosen, gates, kernel), slow, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("kernel", ["compiled", "padded"])
def test_a_second_backward_pass_is_an_error_and_no_wrong_gradient(kernel):
    x, w_in, w_out, chosen, gates = sparse_inputs((5, 4, 4, 3, 2))
    x.requires_grad_()
    output = sparse_feed_forward(x, w_in, w_out, chosen, gates, kernel).sum()
    output.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()


@pytest.mark.parametrize("kernel", ["gapless", "padded"])
def test_bfloat16_is_at_most_twice_as_far_from_float64_as_plain_pytorch(kernel):
    exact_inputs = sparse_inputs((64, 32, 16, 8, 2), torch.float64)
    low = [tensor.bfloat16() if tensor.is_floating_point() else tensor for tensor in exact_inputs]
    exact = sparse_feed_forward(*[t.double() if t.is_floating_point() else t for t in low], "reference")
    plain = sparse_feed_forward(*low, "reference").double()
    fast = sparse_feed_forward(*low, kernel).double()
    assert (fast - exact).abs().max() <= 2 * (plain - exact).abs().max()


def test_an_unknown_kernel_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="gaples"):
        sparse_feed_forward(*sparse_inputs(SHAPES[0]), "gaples")


@pytest.mark.parametrize(("rows", "d_model", "d_ff"), [(1, 4, 4), (7, 5, 3), (40, 16, 48)])
def test_swiglu_equals_its_reference(rows, d_model, d_ff):
    make = torch.Generator().manual_seed(1)
    tensors = [
        torch.randn(rows, d_model, generator=make),
        torch.randn(d_model, 2 * d_ff, generator=make),
        torch.randn(d_ff, d_model, generator=make),
    ]
    names = ["x_TD", "w_in_DH", "w_out_FD"]
    assert_equal(gradients(swiglu, names, tensors), gradients(reference_swiglu, names, tensors), 1e-4)


@pytest.mark.parametrize("size", [(1, 1, 4), (2, 3, 6), (4, 16, 32)])
def test_the_norm_equals_its_reference(size):
    make = torch.Generator().manual_seed(2)
    tensors = [torch.randn(*size, generator=make), torch.rand(size[-1], generator=make) + 0.5]
    names = ["x", "weight_D"]
    assert_equal(gradients(rms_norm, names, tensors, 1e-6), gradients(reference_rms_norm, names, tensors, 1e-6), 1e-5)


@pytest.mark.parametrize(("sequences", "positions", "heads", "head_dim"), [(1, 1, 1, 2), (2, 5, 3, 6), (3, 16, 4, 8)])
def test_the_turned_norm_equals_its_reference(sequences, positions, heads, head_dim):
    from sparsedial.model.transformer import rotary_table
    from sparsedial.shape.ladder import Ladder

    shape = Ladder(vocab_size=64, context=64).shape(2 * head_dim if head_dim % 2 == 0 else 8, 0)
    rotary = rotary_table(shape, positions)
    if rotary[0].shape[-1] != head_dim:
        pytest.skip("the ladder has no such head")
    make = torch.Generator().manual_seed(3)
    tensors = [
        torch.randn(sequences, positions, heads, head_dim, generator=make),
        torch.rand(heads, head_dim, generator=make) + 0.5,
    ]
    names = ["x_BSNC", "weight_NC"]
    fast = gradients(norm_rotate, names, tensors, *rotary, 1e-6)
    slow = gradients(reference_norm_rotate, names, tensors, *rotary, 1e-6)
    assert_equal(fast, slow, 1e-5)


@pytest.mark.parametrize(
    ("sequences", "positions", "queries", "values", "channels"),
    [(1, 1, 1, 1, 2), (2, 5, 3, 3, 6), (3, 24, 4, 2, 16), (1, 25, 2, 1, 8), (2, 70, 6, 2, 20)],
)
def test_attention_equals_its_reference(sequences, positions, queries, values, channels):
    make = torch.Generator().manual_seed(4)
    tensors = [
        3 * torch.randn(sequences, queries + values, positions, channels, generator=make),
        torch.randn(sequences, values, positions, channels, generator=make),
    ]
    names = ["qk_BNSC", "v_BGSC"]
    assert_equal(gradients(attention, names, tensors), gradients(reference_attention, names, tensors), 2e-5)


def test_attention_to_a_value_that_is_no_number_is_none():
    qk, v = torch.ones(1, 2, 8, 4), torch.ones(1, 1, 8, 4)
    qk[0, 1, 5] = float("nan")
    y = attention(qk, v)[0, :, 0]
    assert y[:5].isfinite().all()
    assert y[5:].isnan().all()


@pytest.mark.parametrize(("tokens", "words"), [(1, 1), (3, 5), (17, 40), (64, 256)])
def test_cross_entropy_equals_its_reference(tokens, words):
    make = torch.Generator().manual_seed(5)
    logits = [5 * torch.randn(tokens, words, generator=make)]
    target = torch.randint(words, (tokens,), generator=make)
    slow = gradients(torch.nn.functional.cross_entropy, ["logits_TV"], logits, target)
    assert_equal(gradients(cross_entropy, ["logits_TV"], logits, target), slow, 1e-5)


def test_cross_entropy_of_what_is_no_number_is_none_and_a_foreign_word_is_refused():
    logits = torch.zeros(2, 16)
    with pytest.raises(IndexError):
        cross_entropy(logits, torch.tensor([3, 16]))
    logits[1, 2] = float("nan")
    assert cross_entropy(logits, torch.tensor([3, 4])).isnan()


def test_without_the_compiled_kernels_a_model_gives_the_same(monkeypatch):
    from sparsedial.kernels import native
    from sparsedial.model.transformer import initialise
    from sparsedial.shape.ladder import Ladder

    if native.module is None:
        pytest.skip("installed without a C compiler")
    for experts in (0, 8):
        ids = torch.randint(64, (3, 17), generator=torch.Generator().manual_seed(6))

        def run(experts=experts, ids=ids):
            model = initialise(Ladder(vocab_size=64, context=16).shape(16, experts), 0)
            loss, _ = model.loss(ids, 0.1, 0.1)
            loss.backward()
            return {"loss": loss.detach(), **{name: p.grad for name, p in model.named_parameters()}}

        fast = run()
        monkeypatch.setattr(native, "module", None)
        assert_equal(fast, run(), 1e-5)
        monkeypatch.undo()
