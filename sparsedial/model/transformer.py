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
from sparsedial.kernels import layers, native
from sparsedial.kernels.sparse import sparse_feed_forward, swiglu
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
    """Cosines and sines of the rotary angles. Shapes: two of [S, C], halves repeated; the sine's first half negated.

    Source: Su et al. 2021 (arXiv 2104.09864), in the half-split layout of Hugging Face's Llama
    """
    steps = torch.arange(0, shape.head_dim, 2, dtype=torch.float32, device=device) / shape.head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), shape.rope_theta**-steps)
    sines = angles.sin()
    return torch.cat([angles, angles], 1).cos(), torch.cat([-sines, sines], 1)


def rotate(x_BNSC: Tensor, cosine_SC: Tensor, sine_SC: Tensor) -> Tensor:
    """Turn pairs of channels (c, c + C/2) by their position's angle."""
    cosine_SC, sine_SC = cosine_SC.to(x_BNSC.dtype), sine_SC.to(x_BNSC.dtype)
    return x_BNSC * cosine_SC + x_BNSC.roll(x_BNSC.shape[-1] // 2, -1) * sine_SC


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last axis. Source: Zhang and Sennrich 2019 (arXiv 1910.07467)"""
    return functional.rms_norm(x, weight.shape, weight.to(x.dtype), eps)


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

    def forward(
        self, x_BSD: Tensor, norm_D: Tensor, rotary: tuple[Tensor, Tensor], cache: Cache | None, layer: int
    ) -> Tensor:
        """x + attention(norm(x))."""
        shape = self.shape
        if cache is None and shape.qk_norm != "full" and self.b_qkv_Q is None and native.usable(x_BSD, norm_D):
            norms = (self.q_norm_C, self.k_norm_C) if shape.qk_norm == "head" else (None, None)
            return layers.attention_layer(
                x_BSD, norm_D, self.w_qkv_DQ, *norms, self.w_out_QD, rotary, shape.heads, shape.norm_eps
            )
        return x_BSD + self._mix(rms_norm(x_BSD, norm_D, shape.norm_eps), rotary, cache, layer)

    def _mix(self, x_BSD: Tensor, rotary: tuple[Tensor, Tensor], cache: Cache | None, layer: int) -> Tensor:
        shape = self.shape
        qkv_BSQ = x_BSD @ self.w_qkv_DQ
        if self.b_qkv_Q is not None:
            qkv_BSQ = qkv_BSQ + self.b_qkv_Q
        widths = [count * shape.head_dim for count in (shape.heads, shape.kv_heads, shape.kv_heads)]
        q_BSQ, k_BSQ, v_BSQ = qkv_BSQ.split(widths, 2)
        if shape.qk_norm == "full":
            q_BSQ = rms_norm(q_BSQ, self.q_norm_C, shape.norm_eps)
            k_BSQ = rms_norm(k_BSQ, self.k_norm_C, shape.norm_eps)
        q_BHSC, k_BGSC, v_BGSC = (
            x_BSQ.unflatten(2, (-1, shape.head_dim)).transpose(1, 2) for x_BSQ in (q_BSQ, k_BSQ, v_BSQ)
        )
        if shape.qk_norm == "head":
            q_BHSC = rms_norm(q_BHSC, self.q_norm_C, shape.norm_eps)
            k_BGSC = rms_norm(k_BGSC, self.k_norm_C, shape.norm_eps)
        q_BHSC, k_BGSC = rotate(q_BHSC, *rotary), rotate(k_BGSC, *rotary)
        mask = None
        if cache is not None:
            k_BGSC, v_BGSC = cache.extend(layer, k_BGSC, v_BGSC)
            new, seen = q_BHSC.shape[2], k_BGSC.shape[2]
            mask = torch.ones(new, seen, dtype=torch.bool, device=x_BSD.device).tril(seen - new)
        gqa = shape.heads != shape.kv_heads
        y_BHSC = functional.scaled_dot_product_attention(
            q_BHSC, k_BGSC, v_BGSC, attn_mask=mask, is_causal=mask is None, enable_gqa=gqa
        )
        return y_BHSC.transpose(1, 2).flatten(2) @ self.w_out_QD


class DenseFeedForward(nn.Module):
    """SwiGLU for every token."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.w_in_DH = nn.Parameter(torch.empty(d_model, 2 * d_ff))
        self.w_out_FD = nn.Parameter(torch.empty(d_ff, d_model))

    def forward(self, x_BSD: Tensor, norm_D: Tensor, eps: float, routing: Routing) -> Tensor:
        """x + swiglu(norm(x))."""
        if native.usable(x_BSD, norm_D):
            return layers.dense_layer(x_BSD, norm_D, self.w_in_DH, self.w_out_FD, eps)
        return x_BSD + swiglu(rms_norm(x_BSD, norm_D, eps), self.w_in_DH, self.w_out_FD)


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

    def forward(self, x_BSD: Tensor, norm_D: Tensor, eps: float, routing: Routing) -> Tensor:
        """x + the chosen experts and the shared ones of norm(x)."""
        if self.kernel == "auto" and self.shape.expert_groups == 1 and native.usable(x_BSD, norm_D):
            y_BSD, loss = self._compiled(x_BSD, norm_D, eps, routing)
        else:
            y_BSD, loss = self._plain(rms_norm(x_BSD, norm_D, eps), routing)
            y_BSD = x_BSD + y_BSD
        if routing.losses is not None:
            routing.losses.append(loss)
        return y_BSD

    def _compiled(self, x_BSD: Tensor, norm_D: Tensor, eps: float, routing: Routing) -> tuple[Tensor, Tensor]:
        shape, shared = self.shape, self.shared
        return layers.sparse_layer(
            x_BSD,
            norm_D,
            self.w_router_DE,
            self.w_in_EDH,
            self.w_out_EFD,
            None if shared is None else shared.w_in_DH,
            None if shared is None else shared.w_out_FD,
            bias_E=self.bias_E,
            load_E=None if routing.losses is None else self.load_E,
            top_k=shape.top_k,
            sigmoid=shape.gate == "sigmoid",
            normalize=shape.normalize_gates,
            scaling=shape.routed_scaling,
            balance_weight=routing.balance_weight,
            z_loss_weight=routing.z_loss_weight,
            eps=eps,
        )

    def _plain(self, x_BSD: Tensor, routing: Routing) -> tuple[Tensor, Tensor]:
        x_TD = x_BSD.flatten(0, 1)
        with torch.autocast(x_TD.device.type, enabled=False):
            logits_TE = x_TD.float() @ self.w_router_DE.float()
        chosen_TK, gates_TK, loss = route(
            logits_TE, self.bias_E, self.shape, len(x_BSD), routing.balance_weight, routing.z_loss_weight
        )
        if routing.losses is not None:
            self.load_E += torch.bincount(chosen_TK.flatten(), minlength=self.shape.experts)
        y_TD = sparse_feed_forward(x_TD, self.w_in_EDH, self.w_out_EFD, chosen_TK, gates_TK, self.kernel)
        y_BSD = y_TD.view_as(x_BSD)
        if self.shared is not None:
            y_BSD = y_BSD + swiglu(x_BSD, self.shared.w_in_DH, self.shared.w_out_FD)
        return y_BSD, loss

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
        x_BSD = self.attention(x_BSD, self.attention_norm_D, rotary, cache, self.layer)
        return self.feed_forward(x_BSD, self.feed_forward_norm_D, self.eps, routing)


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
        x_BSD = self._stream(ids_BS, cache, Routing() if routing is None else routing)
        return functional.linear(rms_norm(x_BSD, self.norm_D, self.shape.norm_eps), self._table)

    @property
    def _table(self) -> Tensor:
        return self.embedding_VD if self.unembedding_VD is None else self.unembedding_VD

    def _stream(self, ids_BS: Tensor, cache: Cache | None, routing: Routing) -> Tensor:
        """The residual stream after the last layer."""
        start = cache.filled if cache is not None else 0
        end = start + ids_BS.shape[1]
        self._check(ids_BS, end)
        x_BSD = functional.embedding(ids_BS, self.embedding_VD)
        rotary = (self.cosine[start:end], self.sine[start:end])
        for block in self.blocks:
            x_BSD = block(x_BSD, rotary, cache, routing)
        if cache is not None:
            cache.filled = end
        return x_BSD

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
        x_BSD, target_BS = self._stream(ids_BS[:, :-1], None, routing), ids_BS[:, 1:]
        if native.usable(x_BSD, self._table):
            entropy = layers.head_loss(x_BSD, self.norm_D, self._table, target_BS, self.shape.norm_eps)
        else:
            logits_BSV = functional.linear(rms_norm(x_BSD, self.norm_D, self.shape.norm_eps), self._table)
            entropy = functional.cross_entropy(logits_BSV.flatten(0, 1).float(), target_BS.flatten())
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
