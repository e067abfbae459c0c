"""Every compiled layer equals the readable module that defines it: outputs and each gradient by name, on hard sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sparsedial.kernels import layers, narrow, native
from sparsedial.model.attention import rms_norm
from sparsedial.model.cache import Place
from sparsedial.model.decoder import compiles
from sparsedial.model.rotary import rotary_table
from sparsedial.model.transformer import Block, Routing, initialise
from sparsedial.shape.shape import Shape

pytestmark = pytest.mark.skipif(native.module is None, reason="installed without a C compiler")

SIZES = {"layers": 1, "vocab_size": 64, "context": 64, "qk_norm": "head"}
HEADS = {
    "one head of two channels": {"d_model": 4, "heads": 1, "kv_heads": 1, "head_dim": 2},
    "odd width": {"d_model": 9, "heads": 3, "kv_heads": 3, "head_dim": 6},
    "grouped queries": {"d_model": 16, "heads": 4, "kv_heads": 2, "head_dim": 16},
    "half of each head rotated": {"d_model": 16, "heads": 4, "kv_heads": 2, "head_dim": 12, "rotated": 6},
    "long heads": {"d_model": 24, "heads": 2, "kv_heads": 1, "head_dim": 40},
    "no norm of queries and keys": {"d_model": 12, "heads": 2, "kv_heads": 2, "head_dim": 6, "qk_norm": "none"},
}
ROUTED = {"experts": 8, "top_k": 2, "d_expert": 8, "shared_experts": 1, "gate": "sigmoid", "routing_bias": True}
ONES = {"gate": "ones", "normalize_gates": False, "routing_bias": False}
SPARSE = {
    "as DeepSeek-V3's": ROUTED,
    "softmax, not normalised": {**ROUTED, "gate": "softmax", "normalize_gates": False, "routing_bias": False},
    "softmax, scaled": {**ROUTED, "gate": "softmax", "routed_scaling": 2.5},
    "gates of ones": {**ROUTED, **ONES},
    "gates of ones, every expert, scaled": {**ROUTED, **ONES, "top_k": 8, "routed_scaling": 2.5},
    "no shared expert": {**ROUTED, "shared_experts": 0},
    "shared experts that a gate weighs": {**ROUTED, "shared_experts": 2, "d_expert": 5, "shared_gate": True},
    "two shared experts": {**ROUTED, "shared_experts": 2, "d_expert": 5},
    "one choice": {**ROUTED, "top_k": 1},
    "every expert": {**ROUTED, "top_k": 8},
    "one expert": {**ROUTED, "experts": 1, "top_k": 1},
    "odd number of experts": {**ROUTED, "experts": 19, "top_k": 3, "d_expert": 7},
    "top-p": {**ROUTED, "top_k": 5, "top_p": 0.6},
    "top-p, softmax, not normalised": {
        **ROUTED,
        "gate": "softmax",
        "normalize_gates": False,
        "routing_bias": False,
        "top_k": 4,
        "top_p": 0.8,
    },
    "groups, three of four kept": {**ROUTED, "expert_groups": 4, "kept_groups": 3, "top_k": 3},
    "groups, softmax": {**ROUTED, "gate": "softmax", "routing_bias": False, "expert_groups": 4, "kept_groups": 1},
    "groups of one expert": {**ROUTED, "expert_groups": 8, "kept_groups": 4},
    "more experts than tokens": {**ROUTED, "experts": 70, "top_k": 2},
}
LENGTHS = [(1, 1), (2, 5), (3, 26), (5, 64)]  # the last is longer than a piece of rows


def shape_of(**sizes: object) -> Shape:
    base = {**SIZES, "d_model": 10, "heads": 1, "kv_heads": 1, "head_dim": 2, "d_ff": 0, **sizes}
    return Shape(**base)  # type: ignore[arg-type]


def shaken(module: torch.nn.Module) -> None:
    make = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() < 2:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=make))
        for name, buffer in module.named_buffers():
            if name.endswith("bias_E"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=make))


def both(
    run: Callable[[], tuple[Tensor, ...]], module: torch.nn.Module, x: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values and gradients by name, compiled and plain."""
    found = []
    for kernels in (native.module, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "module", kernels)
            outputs = run()
            weight = torch.linspace(-1, 1, outputs[0].numel()).view_as(outputs[0])
            total = (outputs[0] * weight).sum() + 3 * sum(outputs[1:], torch.zeros(()))
            named = {"x": x, **dict(module.named_parameters())}
            used = {name: tensor for name, tensor in named.items() if not name.startswith("unused")}
            slopes = torch.autograd.grad(total, list(used.values()), allow_unused=True)
        gradients = {name: slope for name, slope in zip(used, slopes, strict=True) if slope is not None}
        found.append({**{f"output {i}": y.detach() for i, y in enumerate(outputs)}, **gradients})
    return found[0], found[1]


def assert_equal(fast: dict[str, Tensor], slow: dict[str, Tensor]) -> None:
    assert fast.keys() == slow.keys()
    for name, expected in slow.items():
        size = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(
            fast[name] / size, expected / size, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("name", HEADS)
def test_attention_equals_its_module(name, lengths, threads):
    shape = shape_of(**HEADS[name], d_ff=8)
    run_block(shape, lengths, threads, lambda block, x, place: (block.attention(x, block.attention_norm_D, place),))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("d_model", "d_ff"), [(4, 1), (9, 7), (16, 40)])
def test_a_dense_layer_equals_its_module(d_model, d_ff, lengths, threads):
    shape = shape_of(d_model=d_model, d_ff=d_ff)

    def run(block: Block, x: Tensor, place: Place) -> tuple[Tensor, ...]:
        return (block.feed_forward(x, block.feed_forward_norm_D, 1e-6, Routing()),)

    run_block(shape, lengths, threads, run)


@torch.no_grad()
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gated", [False, True])
def test_few_rows_are_the_rows_of_many_bit_for_bit(gated, dtype, threads):
    """Panels that are packed in turn are summed as those packed before, in several parts; sizes are not whole tiles."""
    torch.set_num_threads(threads)
    make = torch.Generator().manual_seed(0)
    w_in_DH, w_out_FD = (torch.randn(size, generator=make).to(dtype) / 16 for size in ((330, 2 * 523), (523, 330)))
    norm_D, x_BSD = torch.rand(330, generator=make) + 0.5, torch.randn(1, 700, 330, generator=make)
    scores = torch.rand(523, generator=make), torch.rand(523, generator=make), 0.1, 0.05

    def made(x_BSD: torch.Tensor) -> list[torch.Tensor]:
        if gated:
            return [layers.gated_layer(x_BSD, norm_D, w_in_DH, w_out_FD, *scores, 1e-5)]
        return [layers.dense_layer(x_BSD, norm_D, w_in_DH, w_out_FD, 1e-5), narrow.product(x_BSD, w_in_DH.bfloat16())]

    many = made(x_BSD)
    for count in (1, 7, 252, 600):
        for few, rows in zip(made(x_BSD[:, :count].contiguous()), many, strict=True):
            assert torch.equal(few, rows[:, :count])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("name", SPARSE)
def test_a_sparse_layer_equals_its_module(name, lengths, threads):
    loads = []

    def run(block: Block, x: Tensor, place: Place) -> tuple[Tensor, ...]:
        routing = Routing(balance_weight=0.3, z_loss_weight=0.2, losses=[])
        y = block.feed_forward(x, block.feed_forward_norm_D, 1e-6, routing)
        loads.append(block.feed_forward.load_E.clone())
        block.feed_forward.load_E.zero_()
        return y, routing.losses[0]

    run_block(shape_of(**SPARSE[name]), lengths, threads, run)
    assert torch.equal(loads[0], loads[1])
    assert_visits(int(loads[0].sum()), lengths[0] * lengths[1] * SPARSE[name]["top_k"], name)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", SPARSE)
def test_a_sparse_layer_whose_sequences_visit_other_numbers_of_experts_equals_its_module(name, threads):
    loads, top_k = [], torch.tensor([[2, 1, 70, 3, 1]])

    def run(block: Block, x: Tensor, place: Place) -> tuple[Tensor, ...]:
        routing = Routing(balance_weight=0.3, z_loss_weight=0.2, losses=[], top_k_LB=top_k)
        y = block.feed_forward(x, block.feed_forward_norm_D, 1e-6, routing)
        loads.append(block.feed_forward.load_E.clone())
        block.feed_forward.load_E.zero_()
        return y, routing.losses[0]

    run_block(shape_of(**SPARSE[name]), (5, 64), threads, run)
    assert torch.equal(loads[0], loads[1])
    assert_visits(int(loads[0].sum()), 64 * int(top_k.clamp(max=SPARSE[name]["top_k"]).sum()), name)


def assert_visits(count: int, most: int, name: str) -> None:
    """All choices are visited, or with top-p fewer."""
    assert 0 < count < most if "top_p" in SPARSE[name] else count == most


@pytest.mark.parametrize("gate", ["sigmoid", "softmax"])
def test_far_logits_are_routed_as_the_module_routes_them(gate):
    """Beyond 88 a logit's exponential is no float32 any more."""
    shape = shape_of(**{**ROUTED, "gate": gate})

    def run(block: Block, x: Tensor, place: Place) -> tuple[Tensor, ...]:
        with torch.no_grad():
            block.feed_forward.w_router_DE[0] = torch.tensor([100.0, 5, -50, -60, 90, -100, 0, -3])
            x[..., 0] = 1.0
        return (block.feed_forward(x, torch.ones(10), 1e-6, Routing()),)

    run_block(shape, (2, 5), 1, run)


def place_of(shape: Shape, length: int) -> Place:
    return Place(rotary=rotary_table(shape, length), end=length)


def run_block(shape: Shape, lengths: tuple[int, int], threads: int, run: Callable[..., tuple[Tensor, ...]]) -> None:
    block = initialise(shape, 0).blocks[0]
    shaken(block)
    x = torch.randn(*lengths, shape.d_model, generator=torch.Generator().manual_seed(1)).requires_grad_()
    place = place_of(shape, lengths[1])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_equal(*both(lambda: run(block, x, place), block, x))
    finally:
        torch.set_num_threads(before)


WEIGHTS = {  # of the positions in the loss
    "none": lambda tokens, make: None,
    "any": lambda tokens, make: torch.rand(1, tokens, generator=make),
    "a few": lambda tokens, make: (torch.arange(tokens) % 3 == 0).float().unsqueeze(0),
    "all zero": lambda tokens, make: torch.zeros(1, tokens),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(
    ("tokens", "d_model", "words"), [(1, 3, 1), (7, 9, 5), (300, 8, 1000), (300, 43, 520), (30, 4, 200_003)]
)
def test_the_loss_equals_cross_entropy(tokens, d_model, words, weights, threads):
    make = torch.Generator().manual_seed(5)
    given = head_of(tokens, d_model, words, make)
    target = torch.randint(words, (1, tokens), generator=make)
    weight = WEIGHTS[weights](tokens, make)
    names, found = ["x", "norm", "table"], []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for function, dtype in ((layers.head_loss, torch.float32), (plain_loss, torch.float64)):
        leaves = [tensor.clone().to(dtype).requires_grad_() for tensor in given]
        loss = function(*leaves, target, 1e-6, weight)
        (2 * loss).backward()
        slopes = {name: leaf.grad.float() for name, leaf in zip(names, leaves, strict=True)}
        found.append({"loss": loss.detach().float(), **slopes})
        with torch.no_grad():
            torch.testing.assert_close(function(*leaves, target, 1e-6, weight), loss.detach())
    torch.set_num_threads(before)
    assert_equal(*found)


def head_of(tokens: int, d_model: int, words: int, make: torch.Generator) -> list[Tensor]:
    """A stream, a norm and a table."""
    return [
        torch.randn(1, tokens, d_model, generator=make),
        torch.rand(d_model, generator=make) + 0.5,
        torch.randn(words, d_model, generator=make),
    ]


# In float64: PyTorch's own gradient in float32 is off by 1e-4 with 200,003 words, ours by 1e-6.
def plain_loss(x: Tensor, norm: Tensor, table: Tensor, target: Tensor, eps: float, weight: Tensor | None) -> Tensor:
    logits = (rms_norm(x, norm, eps) @ table.t()).flatten(0, 1)
    each = functional.cross_entropy(logits, target.flatten(), reduction="none")
    weight = torch.ones_like(target) if weight is None else weight
    return (each * weight.flatten()).sum() / (weight.double().sum() or 1.0)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_loss_of_each_position_is_that_of_a_weight_on_it_alone(threads):
    make = torch.Generator().manual_seed(5)
    given, target = head_of(300, 8, 1000, make), torch.randint(1000, (1, 300), generator=make)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    each = layers.head_losses(*given, target, 1e-6)
    alone = [layers.head_loss(*given, target, 1e-6, row.unsqueeze(0)) for row in torch.eye(300)]
    torch.set_num_threads(before)
    torch.testing.assert_close(each, torch.stack(alone).unsqueeze(0))


def test_equal_weights_give_what_none_give_bit_for_bit():
    make = torch.Generator().manual_seed(5)
    given, target, found = head_of(300, 8, 1000, make), torch.randint(1000, (1, 300), generator=make), []
    for weight in (None, torch.ones(1, 300)):
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        loss = layers.head_loss(*leaves, target, 1e-6, weight)
        found.append([loss, *torch.autograd.grad(loss, leaves)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_loss_of_what_is_no_number_is_none_and_a_foreign_word_is_refused():
    x, norm, table = torch.ones(1, 2, 4), torch.ones(4), torch.zeros(16, 4)
    with pytest.raises(IndexError):
        layers.head_loss(x, norm, table, torch.tensor([[3, 16]]), 1e-6)
    table[2, 1] = float("nan")
    assert layers.head_loss(x, norm, table, torch.tensor([[3, 4]]), 1e-6).isnan()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("lengths", [*LENGTHS, (1, 300)])  # the last is longer than a panel is deep
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "width"), [(1, 1, 1, 1), (2, 2, 24, 16), (6, 2, 5, 9), (3, 1, 40, 33)]
)
def test_attention_alone_equals_pytorchs(heads, kv_heads, head_dim, width, lengths, threads):
    sequences, positions = lengths
    sizes = {"q": (heads, head_dim), "k": (kv_heads, head_dim), "v": (kv_heads, width)}
    make = torch.Generator().manual_seed(3)
    leaves = {
        name: torch.randn(sequences, count, positions, size, generator=make).requires_grad_()
        for name, (count, size) in sizes.items()
    }
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(threads)
    for attention in (layers.causal_attention, plain_attention):
        y = attention(*leaves.values(), 0.3)
        slopes = torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum(), list(leaves.values()))
        found.append({"y": y.detach(), **dict(zip(leaves, slopes, strict=True))})
    torch.set_num_threads(before)
    assert_equal(*found)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
    return y.transpose(1, 2).flatten(2)


def test_what_is_no_number_stays_in_its_future():
    shape = shape_of(**HEADS["grouped queries"], d_ff=8)
    block, x = initialise(shape, 0).blocks[0], torch.ones(1, 30, 16)
    x[0, 12] = float("nan")
    y = block.attention(x, block.attention_norm_D, place_of(shape, 30))[0, :, 0]
    assert y[12:].isnan().all()


def test_a_second_backward_pass_is_an_error_and_no_wrong_gradient():
    shape = shape_of(**ROUTED)
    model = initialise(shape, 0)
    loss, _ = model.loss(torch.randint(64, (2, 9)), 0.1, 0.1)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_model_gives_the_same_without_the_compiled_kernels():
    for shape in (shape_of(**ROUTED), replace(shape_of(d_ff=24), layers=2, tied_embeddings=True)):
        model = initialise(shape, 0)
        ids = torch.randint(64, (3, 17), generator=torch.Generator().manual_seed(6))
        x = torch.zeros(1, requires_grad=True)
        assert_equal(*both(lambda model=model, ids=ids, x=x: (model.loss(ids, 0.1, 0.1)[0] + x.sum(),), model, x))


GROUPED = {"layers": 2, "d_model": 16, "heads": 4, "kv_heads": 2, "head_dim": 4, "d_ff": 24}
LATENT = {"kv_lora_rank": 12, "nope_head_dim": 6, "rope_head_dim": 4, "v_head_dim": 5, "head_dim": 10, "kv_heads": 4}
COMPILED = {  # layers whose attention, attention but for its projections, and feed-forward is a call; the loss; a token
    "grouped queries": (GROUPED, 2, 0, 2, True, True),
    "experts": ({**GROUPED, **ROUTED, "d_ff": 0}, 2, 0, 2, True, True),
    "latent attention": ({**GROUPED, **LATENT, "qk_norm": "none"}, 0, 2, 2, True, True),
    "a norm over all heads": ({**GROUPED, "qk_norm": "full"}, 0, 2, 2, True, True),
    "biases": ({**GROUPED, "attention_bias": True}, 0, 2, 2, True, True),
    "a window in the second layer": ({**GROUPED, "window": 5, "full_layers": 1}, 1, 0, 2, True, True),
    "groups of experts": ({**GROUPED, **ROUTED, "d_ff": 0, "expert_groups": 4, "kept_groups": 2}, 2, 0, 2, True, True),
    "gates of ones": ({**GROUPED, **ROUTED, **ONES, "d_ff": 0}, 2, 0, 2, True, True),
    "gated shared experts": ({**GROUPED, **ROUTED, "d_ff": 0, "shared_gate": True}, 2, 0, 2, True, True),
    "top-p": ({**GROUPED, **ROUTED, "d_ff": 0, "top_p": 0.5}, 2, 0, 2, True, True),
    "a cap": ({**GROUPED, "logit_cap": 9.0}, 2, 0, 2, False, False),
}


@pytest.mark.parametrize("name", COMPILED)
def test_what_is_one_compiled_call_is_what_the_documentation_says(monkeypatch, name):
    """docs/model.md, "How the sparse layer is computed": a shape that falls back unseen would only be slow."""
    sizes, attentions, mixtures, feed_forwards, loss, token = COMPILED[name]
    called = dict.fromkeys(("attention_layer", "causal_attention", "dense_layer", "sparse_layer", "head_loss"), 0)

    def counted(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*given, **named):
            called[name] += 1
            return function(*given, **named)

        return call

    for function in called:
        monkeypatch.setattr(layers, function, counted(function, getattr(layers, function)))
    model = initialise(shape_of(**sizes), 0)
    model.loss(torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0)))
    assert (called["attention_layer"], called["causal_attention"]) == (attentions, mixtures)
    assert called["dense_layer"] + called["sparse_layer"] == feed_forwards
    assert called["head_loss"] == loss
    assert compiles(model) == token
