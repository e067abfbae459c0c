"""Peers that a training step is compared with: a plain eager GPT, a per-expert loop, torchtitan's, Hugging Face's.

B sequences, S positions, T tokens, D d_model, E experts, K chosen.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsedial.shape.shape import Shape


class PlainBlock(nn.Module):
    """LayerNorm, fused causal attention, a GELU layer, as in a tutorial's GPT."""

    def __init__(self, d_model: int, heads: int, feed_forward: nn.Module) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model, bias=False), nn.Linear(d_model, d_model, bias=False)
        self.feed_forward = feed_forward

    def forward(self, x_BSD: Tensor) -> Tensor:
        parts = self.qkv(self.first(x_BSD)).chunk(3, dim=2)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BSD = x_BSD + self.out(y.transpose(1, 2).flatten(2))
        return x_BSD + self.feed_forward(self.second(x_BSD))


class LoopedExperts(nn.Module):
    """Softmax top-k routing and a Python loop over SwiGLU experts: the simplest implementation."""

    def __init__(self, d_model: int, d_expert: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.router = nn.Linear(d_model, experts, bias=False)
        self.up = nn.ModuleList(nn.Linear(d_model, 2 * d_expert, bias=False) for _ in range(experts))
        self.down = nn.ModuleList(nn.Linear(d_expert, d_model, bias=False) for _ in range(experts))

    def forward(self, x_BSD: Tensor) -> Tensor:
        x_TD = x_BSD.flatten(0, 1)
        weights_TK, chosen_TK = self.router(x_TD).softmax(1).topk(self.top_k, dim=1)
        y_TD = torch.zeros_like(x_TD)
        for expert, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            token, choice = (chosen_TK == expert).nonzero(as_tuple=True)
            gate, value = up(x_TD[token]).chunk(2, dim=1)
            y_TD = y_TD.index_add(0, token, down(functional.silu(gate) * value) * weights_TK[token, choice, None])
        return y_TD.view_as(x_BSD)


class TitanExperts(nn.Module):
    """torchtitan's own MoE layer: grouped products of `torch`, always in bfloat16. Written for commit b5bcd76c66d0."""

    def __init__(self, d_model: int, d_expert: int, experts: int, top_k: int) -> None:
        super().__init__()
        from torchtitan.models.common import config_utils  # pyright: ignore[reportMissingImports]

        router = config_utils.make_router_config(
            dim=d_model, num_experts=experts, gate_param_init={}, top_k=top_k, score_func="softmax"
        )
        routed = config_utils.make_routed_experts_config(
            dim=d_model, hidden_dim=d_expert, num_experts=experts, top_k=top_k, param_init={}, comm_backend="standard"
        )
        self.layer = config_utils.make_moe_config(num_experts=experts, router=router, routed_experts=routed).build()
        for parameter in self.layer.parameters():
            nn.init.normal_(parameter, std=d_model**-0.5)

    def forward(self, x_BSD: Tensor) -> Tensor:
        return self.layer(x_BSD.flatten(0, 1)).view_as(x_BSD)


Experts = type[LoopedExperts] | type[TitanExperts]


class PlainGpt(nn.Module):
    """A decoder of plain blocks with learned positions and tied embeddings; dense if no kind of experts is given."""

    def __init__(self, shape: Shape, experts: Experts | None = None) -> None:
        super().__init__()
        self.token = nn.Embedding(shape.vocab_size, shape.d_model)
        self.position = nn.Embedding(shape.context, shape.d_model)
        self.blocks = nn.Sequential(
            *(PlainBlock(shape.d_model, shape.heads, self._feed_forward(shape, experts)) for _ in range(shape.layers))
        )
        self.norm = nn.LayerNorm(shape.d_model)

    @staticmethod
    def _feed_forward(shape: Shape, experts: Experts | None) -> nn.Module:
        if experts is not None:
            return experts(shape.d_model, shape.d_expert, shape.experts, shape.top_k + shape.shared_experts)
        width = (3 * (shape.d_ff or (shape.top_k + shape.shared_experts) * shape.d_expert)) // 2  # SwiGLU's FLOPs
        layers = nn.Linear(shape.d_model, width, bias=False), nn.GELU(), nn.Linear(width, shape.d_model, bias=False)
        return nn.Sequential(*layers)

    def forward(self, ids_BS: Tensor) -> Tensor:
        positions = torch.arange(ids_BS.shape[1])
        x_BSD = self.blocks(self.token(ids_BS) + self.position(positions))
        return functional.linear(self.norm(x_BSD), self.token.weight)


def plain_step(shape: Shape, batch: int, context: int, experts: Experts | None = None) -> Callable[[], None]:
    """A step of a plain GPT, which is sparse if a kind of experts is given."""
    return _step(PlainGpt(shape, experts), shape.vocab_size, batch, context)


def hugging_face_step(shape: Shape, experts_mode: str, batch: int, context: int) -> Callable[[], None]:
    """A step of `transformers`' Qwen3-MoE, or of its dense Qwen3 for a dense shape, with random weights."""
    return _step(_hugging_face(shape, experts_mode), shape.vocab_size, batch, context)


def _step(model: nn.Module, vocab_size: int, batch: int, context: int) -> Callable[[], None]:
    """Eager forward, loss, backward, clipping and fused AdamW. Logits may be inside an output object."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids_BS1 = torch.randint(vocab_size, (batch, context + 1), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        output = model(ids_BS1[:, :-1])
        logits = output if isinstance(output, Tensor) else output.logits
        loss = functional.cross_entropy(logits.flatten(0, 1), ids_BS1[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def _hugging_face(shape: Shape, experts_mode: str) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    from sparsedial.shape.config import write_config

    values = write_config(shape)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    config.use_cache = False
    options = {"experts_implementation": experts_mode} if shape.experts else {}
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, **options)
