"""Types by rule: products, stream and experts in the recipe's type; router, sums, loss and learning in float32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from sparsedial.kernels import native, sparse
from sparsedial.model.transformer import Transformer, initialise
from sparsedial.model.working import TYPES, Working
from sparsedial.records.recipe import Dtype
from sparsedial.shape.ladder import Ladder
from tests.model.shapes import FAMILIES

SHAPE = replace(Ladder(vocab_size=64, context=16).shape(16, 8), mtp_layers=1, shared_gate=True)
IDS = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))


def loss(model: Transformer) -> torch.Tensor:
    return model.loss(IDS, 1e-3, 1e-3, 0.3)[0]


@pytest.mark.parametrize("dtype", TYPES)
def test_each_part_works_in_the_type_of_its_rule(monkeypatch, dtype):
    products, stream = TYPES[dtype]
    seen: dict[str, set[torch.dtype]] = {"experts": set(), "stream": set(), "router": set(), "loss": set()}

    def experts(*tensors):
        seen["experts"] |= {tensor.dtype for tensor in tensors[:3]}
        return sparse.fastest(*tensors)

    def routed(logits_TE, *rest):
        seen["router"].add(logits_TE.dtype)
        return route(logits_TE, *rest)

    def measured(logits_TV, target_T):
        seen["loss"].add(logits_TV.dtype)
        return cross_entropy(logits_TV, target_T)

    from sparsedial.model import transformer

    route, cross_entropy = transformer.route, functional.cross_entropy
    monkeypatch.setitem(sparse.KERNELS, "auto", experts)
    monkeypatch.setattr(transformer, "route", routed)
    monkeypatch.setattr(native, "module", None)
    monkeypatch.setattr(functional, "cross_entropy", measured)
    model = initialise(SHAPE, 0)
    working = Working(model, dtype)
    for block in (*working.model.blocks, *(module.block for module in working.model.predictions)):
        block.register_forward_hook(lambda _, __, x_BSD: seen["stream"].add(x_BSD.dtype))
    gradients = working.backward(loss(working.model))
    assert seen == {"experts": {products}, "stream": {stream}, "router": {torch.float32}, "loss": {torch.float32}}
    assert len(gradients) == len(list(model.parameters()))
    assert {gradient.dtype for gradient in gradients} == {torch.float32}


@pytest.mark.parametrize("dtype", [dtype for dtype in TYPES if dtype != "float32"])
@pytest.mark.parametrize("shape", [SHAPE, FAMILIES["deepseek_v2, groups and scaling"]], ids=["ladder", "latent"])
def test_a_working_models_gradient_is_as_near_to_float32s_as_autocasts(monkeypatch, shape, dtype):
    """Every token visits every expert, since rounding may change a choice."""
    monkeypatch.setattr(native, "module", None)
    model = initialise(replace(shape, top_k=shape.experts, kept_groups=shape.expert_groups), 0)

    def gradient(dtype: Dtype, autocast: bool = False) -> torch.Tensor:
        working = Working(model, dtype)
        working.forget_gradients()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            total = loss(working.model)
        return torch.cat([gradient.flatten() for gradient in working.backward(total)])

    exact = gradient("float32")
    far, near = ((found - exact).norm() for found in (gradient(dtype), gradient("float32", autocast=True)))
    assert 0 < far < 1.5 * near


def test_the_copies_follow_the_weights_and_share_what_is_exact():
    model = initialise(SHAPE, 0)
    working = Working(model, "bfloat16")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    working.renew()
    ours, theirs = dict(model.named_parameters()), dict(working.model.named_parameters())
    for name, weight in ours.items():
        assert torch.equal(theirs[name], weight if name.endswith("w_router_DE") else weight.bfloat16()), name
    layer, copied = model.sparse_feed_forwards[0], working.model.sparse_feed_forwards[0]
    assert layer.w_router_DE is copied.w_router_DE
    assert layer.bias_E is copied.bias_E
    loss(working.model)
    assert int(layer.load_E.sum()) == 2 * 16 * SHAPE.top_k


def test_in_float32_the_working_model_is_the_model_itself():
    model = initialise(SHAPE, 0)
    assert Working(model, "float32").model is model


@pytest.mark.parametrize("dtype", TYPES)
def test_each_gradient_is_told_once_and_only_while_somebody_listens(dtype):
    """It is then where the optimizer looks for it; a tied table's comes once, though it is used twice."""
    model = initialise(replace(SHAPE, tied_embeddings=True), 0)
    working, told = Working(model, dtype), list[int]()

    def arrived(number: int) -> None:
        assert working.holders[number].grad is not None
        told.append(number)

    for _ in range(2):
        working.forget_gradients()
        with working.listening(arrived):
            working.backward(loss(working.model))
    working.backward(loss(working.model))
    assert sorted(told) == sorted(2 * list(range(len(working.holders))))
