"""Attention: grouped queries (Llama, Qwen3, OLMoE, Mixtral) or multi-head latent attention (DeepSeek).

B sequences, S new positions, P all positions so far, D d_model, H query heads, G key-value heads, C head_dim,
Q = (H + 2G)*C, U unrotated and V value channels of a latent head, R rank of the latent, W rotated channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsedial.kernels import layers, native
from sparsedial.kernels.fused import add_product, by_head, norm_beside, rms_norm, rotate
from sparsedial.kernels.narrow import product, widened
from sparsedial.model.cache import Place
from sparsedial.model.rotary import attention_scale
from sparsedial.shape.shape import Shape

LATENT_EPS = 1e-6  # of the norms inside latent attention, independent of the model's norm_eps; as in DeepSeek's code


def attend(q_BHSC: Tensor, k_BGPC: Tensor, v_BGPV: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Weighted values, heads side by side. Shapes: to [B, S, H * V]"""
    if mask is None and native.takes(q_BHSC, k_BGPC, v_BGPV):
        return layers.causal_attention(q_BHSC, k_BGPC, v_BGPV, scale)
    y_BHSV = functional.scaled_dot_product_attention(
        q_BHSC, k_BGPC, v_BGPV, attn_mask=mask, is_causal=mask is None, scale=scale,
        enable_gqa=q_BHSC.shape[1] != k_BGPC.shape[1],
    )  # fmt: skip
    return y_BHSV.transpose(1, 2).flatten(2)


class GroupedAttention(nn.Module):
    """Causal attention whose query heads share keys and values in groups."""

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.shape, self.layer = shape, layer
        heads, kv_heads, head_dim = shape.heads, shape.kv_heads, shape.head_dim
        self.w_qkv_DQ = nn.Parameter(torch.empty(shape.d_model, (heads + 2 * kv_heads) * head_dim))
        self.w_out_QD = nn.Parameter(torch.empty(heads * head_dim, shape.d_model))
        self.b_qkv_Q = nn.Parameter(torch.zeros((heads + 2 * kv_heads) * head_dim)) if shape.attention_bias else None
        if shape.qk_norm == "head":
            self.q_norm_C, self.k_norm_C = nn.Parameter(torch.ones(head_dim)), nn.Parameter(torch.ones(head_dim))
        elif shape.qk_norm == "full":
            self.q_norm_C = nn.Parameter(torch.ones(heads * head_dim))
            self.k_norm_C = nn.Parameter(torch.ones(kv_heads * head_dim))

    def forward(self, x_BSD: Tensor, norm_D: Tensor, place: Place) -> Tensor:
        """x + attention(norm(x))."""
        shape = self.shape
        mask = place.mask(x_BSD.shape[1], shape.window_of(self.layer), x_BSD.device)
        plain = place.cache is None and mask is None
        if plain and shape.qk_norm != "full" and self.b_qkv_Q is None and native.usable(x_BSD, norm_D, *place.rotary):
            norms = (self.q_norm_C, self.k_norm_C) if shape.qk_norm == "head" else (None, None)
            return layers.attention_layer(
                x_BSD, norm_D, self.w_qkv_DQ, *norms, self.w_out_QD, place.rotary, shape.heads, shape.norm_eps
            )
        x_BSD, normed_BSD = norm_beside(x_BSD, norm_D, shape.norm_eps)
        q_BHSC, k_BGPC, v_BGPC = self._by_head(normed_BSD, place)
        return add_product(x_BSD, attend(q_BHSC, k_BGPC, v_BGPC, mask, attention_scale(shape)), self.w_out_QD)

    def _by_head(self, x_BSD: Tensor, place: Place) -> tuple[Tensor, Tensor, Tensor]:
        shape = self.shape
        qkv_BSQ = product(x_BSD, self.w_qkv_DQ)
        if self.b_qkv_Q is not None:
            qkv_BSQ = qkv_BSQ + self.b_qkv_Q
        norms = (self.q_norm_C, self.k_norm_C) if shape.qk_norm in ("head", "full") else None
        q_BHSC, k_BGSC, v_BGSC = by_head(qkv_BSQ, norms, place.rotary, shape.heads, shape.norm_eps)
        return q_BHSC, *place.extend(self.layer, k_BGSC, v_BGSC)


class LatentAttention(nn.Module):
    """Multi-head latent attention: keys and values made from a latent of low rank, and one rotated key for all heads.

    A cache keeps only the latent and that key. The query is then projected to the latent, instead of the latent to keys
    and values.

    Source: DeepSeek-V2 (arXiv 2405.04434), section 2.1
    """

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.shape, self.layer = shape, layer
        query_dim = shape.heads * shape.head_dim
        rank = shape.kv_lora_rank
        if shape.q_lora_rank:
            self.w_query_down_DA = nn.Parameter(torch.empty(shape.d_model, shape.q_lora_rank))
            self.query_norm_A = nn.Parameter(torch.ones(shape.q_lora_rank))
        self.w_query_AQ = nn.Parameter(torch.empty(shape.q_lora_rank or shape.d_model, query_dim))
        self.w_latent_DR = nn.Parameter(torch.empty(shape.d_model, rank + shape.rope_head_dim))
        self.latent_norm_R = nn.Parameter(torch.ones(rank))
        self.w_up_RQ = nn.Parameter(torch.empty(rank, shape.heads * (shape.nope_head_dim + shape.v_head_dim)))
        self.w_out_QD = nn.Parameter(torch.empty(shape.heads * shape.v_head_dim, shape.d_model))

    def forward(self, x_BSD: Tensor, norm_D: Tensor, place: Place) -> Tensor:
        """x + attention(norm(x))."""
        shape = self.shape
        x_BSD, normed_BSD = norm_beside(x_BSD, norm_D, shape.norm_eps)
        query_BSA = normed_BSD
        if shape.q_lora_rank:
            query_BSA = rms_norm(product(normed_BSD, self.w_query_down_DA), self.query_norm_A, LATENT_EPS)
        q_BHSC = product(query_BSA, self.w_query_AQ).unflatten(2, (shape.heads, -1)).transpose(1, 2)
        q_BHSU, q_BHSW = q_BHSC.split([shape.nope_head_dim, shape.rope_head_dim], 3)
        latent_BSR, k_BSW = product(normed_BSD, self.w_latent_DR).split([shape.kv_lora_rank, shape.rope_head_dim], 2)
        latent_B1SR = rms_norm(latent_BSR, self.latent_norm_R, LATENT_EPS).unsqueeze(1)
        q_BHSW, k_B1SW = rotate(q_BHSW, *place.rotary), rotate(k_BSW.unsqueeze(1), *place.rotary)
        latent_B1PR, k_B1PW = place.extend(self.layer, latent_B1SR, k_B1SW)
        mask = place.mask(x_BSD.shape[1], 0, x_BSD.device)
        mix = self._in_the_latent if place.start else self._by_head
        return add_product(x_BSD, mix(q_BHSU, q_BHSW, latent_B1PR, k_B1PW, mask), self.w_out_QD)

    def _by_head(
        self, q_BHSU: Tensor, q_BHSW: Tensor, latent_B1PR: Tensor, k_B1PW: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Attention with every head's keys and values made from the latent: fewer FLOPs for many positions at once."""
        shape = self.shape
        up_BHPC = product(latent_B1PR.squeeze(1), self.w_up_RQ).unflatten(2, (shape.heads, -1)).transpose(1, 2)
        k_BHPU, v_BHPV = up_BHPC.split([shape.nope_head_dim, shape.v_head_dim], 3)
        k_BHPC = torch.cat([k_BHPU, k_B1PW.expand(-1, shape.heads, -1, -1)], 3)
        return attend(torch.cat([q_BHSU, q_BHSW], 3), k_BHPC, v_BHPV, mask, attention_scale(shape))

    def _in_the_latent(
        self, q_BHSU: Tensor, q_BHSW: Tensor, latent_B1PR: Tensor, k_B1PW: Tensor, mask: Tensor | None
    ) -> Tensor:
        """The same, with all heads attending to the latent itself: fewer bytes for one position at a time."""
        shape = self.shape
        up_RHC = widened(q_BHSU, self.w_up_RQ).unflatten(1, (shape.heads, -1))
        to_latent_HUR = up_RHC[..., : shape.nope_head_dim].permute(1, 2, 0)
        from_latent_HRV = up_RHC[..., shape.nope_head_dim :].permute(1, 0, 2)
        q_BHSR = torch.cat([q_BHSU @ to_latent_HUR, q_BHSW], 3)
        k_B1PR = torch.cat([latent_B1PR, k_B1PW], 3)
        y_BSQ = attend(q_BHSR, k_B1PR, latent_B1PR, mask, attention_scale(shape))
        y_BHSR = y_BSQ.unflatten(2, (shape.heads, -1)).transpose(1, 2)
        return (y_BHSR @ from_latent_HRV).transpose(1, 2).flatten(2)


Attention = GroupedAttention | LatentAttention


def make_attention(shape: Shape, layer: int) -> Attention:
    """The attention of a shape's layer."""
    return LatentAttention(shape, layer) if shape.latent_attention else GroupedAttention(shape, layer)
