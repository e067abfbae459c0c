"""The model, top to bottom: a decoder with rotary positions, query-key norm, grouped queries, SwiGLU, dense or sparse.

B sequences, S positions, T tokens (B*S), D d_model, H query heads, G key-value heads, C head_dim, Q = (H + 2G)*C,
E experts, K chosen, F width of an expert or dense layer, V vocabulary, L layers.
Weights multiply from the right (x @ w), so their names read as their axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsedial.errors import UserError
from sparsedial.kernels.attention import attention
from sparsedial.kernels.entropy import cross_entropy
from sparsedial.kernels.norm import heads, rms_norm, rotate
from sparsedial.kernels.sparse import sparse_feed_forward
from sparsedial.kernels.swiglu import swiglu
from sparsedial.model.router import bias_after, route
from sparsedial.shape.shape import Shape


class Cache:
    """Keys and values of the positions so far, [B, G, context, C] in each layer."""

    def __init__(self, shape: Shape, sequences: int, length: int, device: torch.device, dtype: torch.dtype) -> None:
        size = (shape.layers, 2, sequences, shape.kv_heads, length, shape.head_dim)
        self.kv = torch.zeros(size, device=device, dtype=dtype)
        self.filled = 0

    def extend(self, layer: int, k_BGSC: Tensor, v_BGSC: Tensor) -> tuple[Tensor, Tensor]:
        """Store new positions of a layer and give all of them so far."""
        end = self.filled + k_BGSC.shape[2]
        self.kv[layer, 0, :, :, self.filled : end] = k_BGSC
        self.kv[layer, 1, :, :, self.filled : end] = v_BGSC
        return self.kv[layer, 0, :, :, :end], self.kv[layer, 1, :, :, :end]


@dataclass
class Routing:
    """What the router needs besides its input, and what it leaves for the training loop."""

    balance_weight: float = 0.0
    z_loss_weight: float = 0.0
    losses: list[Tensor] | None = None  # filled while training


def rotary_table(shape: Shape, length: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles. Shapes: two of [S, 1, C], halves repeated; the sine's first half negated.

    Source: Su et al. 2021 (arXiv 2104.09864), in the half-split layout of Hugging Face's Llama
    """
    steps = torch.arange(0, shape.head_dim, 2, dtype=torch.float32, device=device) / shape.head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), shape.rope_theta**-steps)
    sines = angles.sin()
    return torch.cat([angles, angles], 1).cos().unsqueeze(1), torch.cat([-sines, sines], 1).unsqueeze(1)


class Attention(nn.Module):
    """Causal attention with grouped queries."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        heads, kv_heads, head_dim = shape.heads, shape.kv_heads, shape.head_dim
        self.w_qkv_DQ = nn.Parameter(torch.empty(shape.d_model, (heads + 2 * kv_heads) * head_dim))
        self.w_out_QD = nn.Parameter(torch.empty(heads * head_dim, shape.d_model))
        self.b_qkv_Q = nn.Parameter(torch.zeros((heads + 2 * kv_heads) * head_dim)) if shape.attention_bias else None
        if shape.qk_norm == "head":
            self.q_norm_C, self.k_norm_C = nn.Parameter(torch.ones(head_dim)), nn.Parameter(torch.ones(head_dim))
        elif shape.qk_norm == "full":
            self.q_norm_C = nn.Parameter(torch.ones(heads * head_dim))
            self.k_norm_C = nn.Parameter(torch.ones(kv_heads * head_dim))

    def _by_head(self, qkv_BSQ: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Queries and keys side by side, normed and rotated, and values. Shapes: to [B, H+G, S, C], [B, G, S, C]"""
        shape = self.shape
        count = shape.heads + shape.kv_heads
        if shape.qk_norm == "head":
            weights = [self.q_norm_C.expand(shape.heads, -1), self.k_norm_C.expand(shape.kv_heads, -1)]
            return heads(qkv_BSQ, torch.cat(weights), *rotary, shape.kv_heads, shape.norm_eps)
        qk_BSQ, v_BSQ = qkv_BSQ.split([count * shape.head_dim, shape.kv_heads * shape.head_dim], 2)
        if shape.qk_norm == "full":
            q_BSQ, k_BSQ = qk_BSQ.split([shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim], 2)
            q_BSQ = rms_norm(q_BSQ, self.q_norm_C, shape.norm_eps)
            qk_BSQ = torch.cat([q_BSQ, rms_norm(k_BSQ, self.k_norm_C, shape.norm_eps)], 2)
        turned_BSNC = rotate(qk_BSQ.unflatten(2, (count, shape.head_dim)), *rotary)
        v_BSGC = v_BSQ.unflatten(2, (shape.kv_heads, shape.head_dim))
        return turned_BSNC.transpose(1, 2), v_BSGC.transpose(1, 2)

    def forward(self, x_BSD: Tensor, rotary: tuple[Tensor, Tensor], cache: Cache | None, layer: int) -> Tensor:
        shape = self.shape
        qkv_BSQ = x_BSD @ self.w_qkv_DQ
        if self.b_qkv_Q is not None:
            qkv_BSQ = qkv_BSQ + self.b_qkv_Q
        qk_BNSC, v_BGSC = self._by_head(qkv_BSQ, rotary)
        if cache is None:
            return attention(qk_BNSC, v_BGSC) @ self.w_out_QD
        q_BHSC, k_BGSC = qk_BNSC.split([shape.heads, shape.kv_heads], 1)
        k_BGSC, v_BGSC = cache.extend(layer, k_BGSC, v_BGSC)
        new, all_positions = q_BHSC.shape[2], k_BGSC.shape[2]
        mask = torch.ones(new, all_positions, dtype=torch.bool, device=x_BSD.device).tril(all_positions - new)
        y_BHSC = functional.scaled_dot_product_attention(
            q_BHSC, k_BGSC, v_BGSC, attn_mask=mask, enable_gqa=shape.heads != shape.kv_heads
        )
        return y_BHSC.transpose(1, 2).flatten(2) @ self.w_out_QD


class DenseFeedForward(nn.Module):
    """SwiGLU for every token."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.w_in_DH = nn.Parameter(torch.empty(d_model, 2 * d_ff))
        self.w_out_FD = nn.Parameter(torch.empty(d_ff, d_model))

    def forward(self, x_BSD: Tensor, routing: Routing) -> Tensor:
        return swiglu(x_BSD.flatten(0, 1), self.w_in_DH, self.w_out_FD).view_as(x_BSD)


class SparseFeedForward(nn.Module):
    """Routed experts, and the shared ones as one dense layer of their joint width."""

    bias_E: Tensor | None
    load_E: Tensor

    def __init__(self, shape: Shape, kernel: str = "auto") -> None:
        super().__init__()
        self.shape, self.kernel = shape, kernel
        self.w_router_DE = nn.Parameter(torch.empty(shape.d_model, shape.experts))
        self.w_in_EDH = nn.Parameter(torch.empty(shape.experts, shape.d_model, 2 * shape.d_expert))
        self.w_out_EFD = nn.Parameter(torch.empty(shape.experts, shape.d_expert, shape.d_model))
        self.shared = (
            DenseFeedForward(shape.d_model, shape.shared_experts * shape.d_expert) if shape.shared_experts else None
        )
        self.register_buffer("bias_E", torch.zeros(shape.experts) if shape.routing_bias else None)
        self.register_buffer("load_E", torch.zeros(shape.experts, dtype=torch.long), persistent=False)

    def forward(self, x_BSD: Tensor, routing: Routing) -> Tensor:
        x_TD = x_BSD.flatten(0, 1)
        with torch.autocast(x_TD.device.type, enabled=False):
            logits_TE = x_TD.float() @ self.w_router_DE.float()
        chosen_TK, gates_TK, loss = route(
            logits_TE, self.bias_E, self.shape, len(x_BSD), routing.balance_weight, routing.z_loss_weight
        )
        if routing.losses is not None:
            routing.losses.append(loss)
            self.load_E += torch.bincount(chosen_TK.flatten(), minlength=self.shape.experts)
        y_TD = sparse_feed_forward(x_TD, self.w_in_EDH, self.w_out_EFD, chosen_TK, gates_TK, self.kernel)
        y_BSD = y_TD.view_as(x_BSD)
        return y_BSD if self.shared is None else y_BSD + self.shared(x_BSD, routing)

    @torch.no_grad()
    def balance(self, rate: float) -> None:
        """Move the routing bias by the load since the last call, and forget that load."""
        if self.bias_E is not None and rate:
            self.bias_E.copy_(bias_after(self.bias_E, self.load_E, rate))
        self.load_E.zero_()


class Block(nn.Module):
    """Attention, then feed-forward, each on the normed stream and added to it."""

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.layer, self.eps = layer, shape.norm_eps
        sparse = shape.experts > 0 and layer >= shape.dense_layers
        self.attention_norm_D = nn.Parameter(torch.ones(shape.d_model))
        self.feed_forward_norm_D = nn.Parameter(torch.ones(shape.d_model))
        self.attention = Attention(shape)
        self.feed_forward = SparseFeedForward(shape) if sparse else DenseFeedForward(shape.d_model, shape.d_ff)

    def forward(self, x_BSD: Tensor, rotary: tuple[Tensor, Tensor], cache: Cache | None, routing: Routing) -> Tensor:
        normed_BSD = rms_norm(x_BSD, self.attention_norm_D, self.eps)
        x_BSD = x_BSD + self.attention(normed_BSD, rotary, cache, self.layer)
        return x_BSD + self.feed_forward(rms_norm(x_BSD, self.feed_forward_norm_D, self.eps), routing)


class Transformer(nn.Module):
    """A decoder of a Shape; called on token ids it gives logits.

    Raises: UserError for shapes that this model does not build (multi-head latent attention, so far).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if shape.latent_attention:
            raise UserError("model: multi-head latent attention (kv_lora_rank) can be counted, not yet built")
        self.shape = shape
        self.embedding_VD = nn.Parameter(torch.empty(shape.vocab_size, shape.d_model))
        self.blocks = nn.ModuleList(Block(shape, layer) for layer in range(shape.layers))
        self.norm_D = nn.Parameter(torch.ones(shape.d_model))
        self.unembedding_VD = (
            None if shape.tied_embeddings else nn.Parameter(torch.empty(shape.vocab_size, shape.d_model))
        )
        cosine, sine = rotary_table(shape, min(shape.context, 4096))
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def forward(self, ids_BS: Tensor, cache: Cache | None = None, routing: Routing | None = None) -> Tensor:
        """Logits of the next token at every position.

        Shapes: ids [B, S] to [B, S, V]
        Raises: UserError for a sequence longer than the shape's context, or an id outside the vocabulary.
        """
        start = cache.filled if cache is not None else 0
        end = start + ids_BS.shape[1]
        self._check(ids_BS, end)
        x_BSD = functional.embedding(ids_BS, self.embedding_VD)
        rotary = (self.cosine[start:end], self.sine[start:end])
        routing = Routing() if routing is None else routing
        for block in self.blocks:
            x_BSD = block(x_BSD, rotary, cache, routing)
        if cache is not None:
            cache.filled = end
        x_BSD = rms_norm(x_BSD, self.norm_D, self.shape.norm_eps)
        weight_VD = self.embedding_VD if self.unembedding_VD is None else self.unembedding_VD
        return functional.linear(x_BSD, weight_VD)

    def _check(self, ids_BS: Tensor, end: int) -> None:
        if end > self.shape.context:
            raise UserError(f"model: {end} positions are more than its context of {self.shape.context}")
        if end > len(self.cosine):
            cosine, sine = rotary_table(self.shape, self.shape.context, self.cosine.device)
            self.cosine, self.sine = cosine.to(self.cosine.dtype), sine.to(self.sine.dtype)
        if ids_BS.numel() == 0:
            raise UserError("model: no token ids were given")
        if not ids_BS.is_cuda and not (int(ids_BS.min()) >= 0 and int(ids_BS.max()) < self.shape.vocab_size):
            raise UserError(f"model: a token id lies outside 0..{self.shape.vocab_size - 1}")

    def loss(self, ids_BS: Tensor, balance_weight: float = 0.0, z_loss_weight: float = 0.0) -> tuple[Tensor, Tensor]:
        """Training loss on windows of S+1 ids: its sum with the router's losses, and the cross-entropy alone.

        Shapes: ids [B, S+1] to two scalars, nats per token
        """
        routing = Routing(balance_weight=balance_weight, z_loss_weight=z_loss_weight, losses=[])
        logits_BSV = self(ids_BS[:, :-1], routing=routing)
        entropy = cross_entropy(logits_BSV.flatten(0, 1), ids_BS[:, 1:].flatten())
        total = entropy
        for loss in routing.losses or []:
            total = total + loss
        return total, entropy.detach()

    @property
    def sparse_feed_forwards(self) -> list[SparseFeedForward]:
        """The routed layers, first to last."""
        return [block.feed_forward for block in self.blocks if isinstance(block.feed_forward, SparseFeedForward)]  # type: ignore[union-attr]


def initialise(shape: Shape, seed: int) -> Transformer:
    """A model with random weights: 1/sqrt(fan_in), residual outputs divided by sqrt(2 layers), embeddings by 2 sqrt(D).

    The same seed gives the same weights on every machine and device.
    """
    model = Transformer(shape)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            continue  # norms stay at one, biases at zero
        fan_in = parameter.shape[-2]
        std = fan_in**-0.5
        leaf = name.rpartition(".")[2]
        if leaf in ("w_out_QD", "w_out_FD", "w_out_EFD"):
            std /= math.sqrt(2 * shape.layers)
        elif leaf in ("embedding_VD", "unembedding_VD"):
            std = 0.5 * shape.d_model**-0.5
        with torch.no_grad():
            parameter.normal_(0, std, generator=generator)
    return model
