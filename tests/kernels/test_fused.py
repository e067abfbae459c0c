"""What a GPU computes in one launch equals its readable twin, outputs and each gradient: in Triton's interpreter, or on
a GPU.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("triton", reason="installed without Triton")

from sparsedial.kernels import fused, native, triton_launch, watched
from sparsedial.model.head import in_pieces
from sparsedial.model.rotary import rotary_table
from sparsedial.model.router import route
from sparsedial.model.transformer import initialise
from sparsedial.shape.ladder import Ladder
from tests.kernels.test_sparse import assert_near

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
# By norm. A router's gradient is 3e-5 from that in float64, the twin's too; the twin rounds to bfloat16 more often.
NEAR = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
EPS = 1e-6
SHAPE = Ladder(vocab_size=64, context=40).shape(16, 8)


@pytest.fixture
def by_kernel(monkeypatch):
    """Decides whether the kernels run; new memory holds NaN before."""

    def full_of_nan(make):
        def made(*arguments, **options):
            tensor = make(*arguments, **options)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor.fill_(10**6)

        return made

    monkeypatch.setattr(torch.Tensor, "new_empty", full_of_nan(torch.Tensor.new_empty))
    monkeypatch.setattr(torch, "empty_like", full_of_nan(torch.empty_like))
    monkeypatch.setattr(native, "module", None)
    monkeypatch.setattr(triton_launch, "on", lambda _: nullcontext())
    return lambda yes: monkeypatch.setattr(fused, "fuses", lambda _: yes)


def both(by_kernel, function, tensors, dtype=torch.float32):
    """What the kernels give and what the twin gives: outputs, and the gradients of a weighted sum of them."""

    def run(yes):
        by_kernel(yes)
        leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
        outputs = function(**leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        total = sum(
            (output.float() * torch.linspace(-1, 2, output.numel(), device=output.device).view_as(output)).sum()
            for output in outputs
            if output.is_floating_point()
        )
        total.backward()
        found = {f"output {number}": output.detach() for number, output in enumerate(outputs)}
        return found | {name: leaf.grad for name, leaf in leaves.items()}

    fast, slow = run(True), run(False)
    assert {name: tensor.dtype for name, tensor in fast.items()} == {n: t.dtype for n, t in slow.items()}
    assert_near(fast, slow, NEAR[dtype])


def random(*sizes, dtype=torch.float32, seed=0):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("stream", NEAR)
@pytest.mark.parametrize("size", [(1, 1, 12), (3, 50, 40), (2, 700, 5)])
def test_a_norm_equals_its_twin(by_kernel, size, stream, beside):
    """Also where the stream has more digits than the weights."""
    weights = torch.bfloat16 if stream == torch.bfloat16 or beside else torch.float32
    function = fused.norm_beside if beside else fused.rms_norm
    tensors = {"x": random(*size, dtype=stream), "weight_D": 1 + random(size[-1], dtype=weights, seed=1)}
    both(by_kernel, lambda x, weight_D: function(x, weight_D, EPS), tensors, weights)


@pytest.mark.parametrize("by", ["a compiler", "the FLOP counter", "tensors without values", "nobody"])
def test_no_kernel_hides_what_is_followed(monkeypatch, by):
    """On a GPU too."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    if by == "a compiler":
        compiler = SimpleNamespace(is_compiling=lambda: True)
        monkeypatch.setattr(
            watched, "torch", SimpleNamespace(compiler=compiler)
        )  # PyTorch's own knows when it is changed
    following = {"the FLOP counter": FlopCounterMode(display=False), "tensors without values": FakeTensorMode()}
    with following.get(by, nullcontext()):
        x = torch.empty(2, 3)
        assert (fused.fuses(x), in_pieces(x)) == ((by == "nobody",) * 2)


def test_a_backward_pass_of_few_programs_reads_every_row(by_kernel, monkeypatch):
    from sparsedial.kernels import triton_norm

    monkeypatch.setattr(triton_norm, "MOST_PROGRAMS", 2)
    tensors = {"x": random(170, 9), "weight_D": random(9, seed=1)}
    both(by_kernel, lambda x, weight_D: fused.rms_norm(x, weight_D, EPS), tensors)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("normed", ["none", "head", "full"])
@pytest.mark.parametrize("sizes", [(2, 37, 2, 2, 16), (1, 1, 3, 1, 6), (1, 70, 4, 2, 12)])
def test_heads_equal_their_twin(by_kernel, sizes, normed, dtype):
    sequences, positions, heads, kv_heads, head_dim = sizes
    shape = replace(SHAPE, head_dim=head_dim, context=100)
    rotary = tuple(table.to(DEVICE) for table in rotary_table(shape, positions))
    tensors = {"qkv": random(sequences, positions, (heads + 2 * kv_heads) * head_dim, dtype=dtype)}
    for name, count in (("q_norm", heads), ("k_norm", kv_heads)) if normed != "none" else ():
        width = head_dim if normed == "head" else count * head_dim
        tensors[name] = 1 + random(width, dtype=dtype, seed=2)

    def function(qkv, q_norm=None, k_norm=None):
        norms = None if normed == "none" else (q_norm, k_norm)
        q, k, v = fused.by_head(qkv, norms, rotary, heads, EPS)
        return q, k.transpose(1, 2), v  # one slope comes turned

    both(by_kernel, function, tensors, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("size", [(1, 2), (2, 33, 34), (7, 600)])
def test_a_gated_activation_equals_its_twin(by_kernel, size, dtype):
    both(by_kernel, fused.activate, {"h_TK": random(*size, dtype=dtype)}, dtype)


ROUTERS = {
    "softmax": {"gate": "softmax", "normalize_gates": False, "routing_bias": False},
    "softmax, normalised": {"gate": "softmax", "normalize_gates": True},
    "sigmoid": {"gate": "sigmoid", "normalize_gates": True, "routed_scaling": 2.5},
    "ones": {"gate": "ones", "normalize_gates": False, "routed_scaling": 1.0},
}
SIZES = [(1, 1, 5, 2), (3, 40, 8, 3), (2, 150, 70, 2), (2, 9, 4, 4)]  # sequences, positions, experts, top_k
GROUPS = [(1, 1, 6, 2, 3, 2), (2, 50, 60, 8, 6, 3), (2, 9, 4, 2, 4, 3)]  # and groups, kept groups
PARTLY = [(3, 40, 8, 3), (2, 50, 60, 8, 6, 3)]  # of their choices those that reach a share of the weights


@pytest.mark.gpu
@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize(
    ("sizes", "top_p"), [*((sizes, 1.0) for sizes in SIZES + GROUPS), *((sizes, 0.7) for sizes in PARTLY)]
)
@pytest.mark.parametrize("router", ROUTERS)
def test_a_router_equals_its_twin(monkeypatch, by_kernel, router, sizes, top_p, some):
    """Also inside the best groups of experts, and with the fewest choices whose weights reach a share."""
    from sparsedial.model import router as module

    sequences, positions, experts, top_k, *groups = sizes
    shape = replace(SHAPE, experts=experts, top_k=top_k, top_p=top_p, **ROUTERS[router])
    if groups:
        shape = replace(shape, expert_groups=groups[0], kept_groups=groups[1])
    bias = random(experts, seed=3) * 0.1 if shape.routing_bias else None
    visited = (torch.arange(sequences * positions) % top_k + 1).to(DEVICE) if some else None
    monkeypatch.setattr(module, "fuses", lambda tensor: fused.fuses(tensor))

    def function(logits):
        return route(logits, bias, shape, top_k, sequences, 0.3, 0.2, visited)

    both(by_kernel, function, {"logits": random(sequences * positions, experts)})


def test_scores_that_are_no_numbers_choose_experts_that_exist(by_kernel):
    from sparsedial.kernels import triton_router

    rule = triton_router.Rule(3, 1, True, True, False, 1.0, 0.1, 0.1)
    chosen, *_ = triton_router.route(torch.full((5, 6), float("nan")), None, None, rule)
    assert chosen.min() >= 0
    assert chosen.max() < 6


MODELS = {
    "dense": (0, {}),
    "sparse": (8, {}),
    "as OLMoE": (8, {"qk_norm": "full", "shared_experts": 0, "gate": "softmax", "normalize_gates": False}),
    "as DeepSeek-V3": (8, {"expert_groups": 4, "kept_groups": 2, "routed_scaling": 2.5}),
    "top-p": (8, {"top_p": 0.6}),
}


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_a_model_by_kernels_is_the_model_by_pytorch(monkeypatch, by_kernel, name):
    """Loss and every gradient; the experts' kernels have their own test. (On a GPU these round to TF32.)"""
    from sparsedial.model import router as module

    monkeypatch.setattr(module, "fuses", lambda tensor: fused.fuses(tensor))
    experts, changes = MODELS[name]
    model = initialise(replace(Ladder(vocab_size=64, context=16).shape(16, experts), **changes), 0).to(DEVICE)
    ids = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0)).to(DEVICE)

    def run(yes):
        by_kernel(yes)
        model.zero_grad()
        loss, _ = model.loss(ids, 0.1, 0.1)
        loss.backward()
        return {"loss": loss.detach(), **{name: weight.grad for name, weight in model.named_parameters()}}

    slow = {name: tensor.clone() for name, tensor in run(False).items()}
    assert_near(run(True), slow, 3e-4 if GPU else 1e-5)
