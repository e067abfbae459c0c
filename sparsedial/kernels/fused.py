"""Parts of layers that a GPU computes in one launch instead of many, and a CPU in one compiled call where nothing
learns. Here stand the readable twins, which define them and compute them everywhere else.

B sequences, S positions, T tokens (B*S), D d_model, H query heads, G key-value heads, C head_dim, Q = (H + 2G)*C,
F width of a feed-forward layer, K of its input's product (2F, gate half first).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sparsedial.kernels import native, reference, triton_launch
from sparsedial.kernels.narrow import product
from sparsedial.kernels.watched import watched

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def fuses(tensor: Tensor) -> bool:
    """Whether Triton's kernels take this tensor and what goes with it: none where PyTorch follows the computation."""
    return tensor.is_cuda and not watched(tensor) and tensor.dtype in TYPES and triton_launch.available()


def _compiled(*tensors: Tensor) -> bool:
    """Whether compiled kernels take these tensors, of which none gets a gradient."""
    return not torch.is_grad_enabled() and native.usable(*tensors)


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last axis, in the weight's type, which is that of the products that follow.

    Source: Zhang and Sennrich 2019 (arXiv 1910.07467)
    """
    if fuses(x):
        from sparsedial.kernels import triton_norm

        return triton_norm.norm(x, weight_D, eps)
    if _compiled(x, weight_D):
        y, d, threads = torch.empty_like(x), len(weight_D), torch.get_num_threads()
        native.module.norm_rows(x=x, w=weight_D, y=y, rows=x.numel() // d, d=d, eps=eps, threads=threads)
        return y
    return functional.rms_norm(x, weight_D.shape, weight_D.to(x.dtype), eps).to(weight_D.dtype)


def norm_beside(x: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x itself and its norm: on a GPU the gradients of both are added where the norm's is computed."""
    if fuses(x):
        from sparsedial.kernels import triton_norm

        return triton_norm.norm_beside(x, weight_D, eps)
    return x, rms_norm(x, weight_D, eps)


def by_head(
    qkv_BSQ: Tensor, norms: tuple[Tensor, Tensor] | None, rotary: tuple[Tensor, Tensor], heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values by head; queries and keys normed if norms are given, and rotated.

    Norms of [C] are of each head, those of [H*C] and [G*C] over all heads.

    Shapes: rotary two of [S, C] (or [B, 1, S, C], each sequence's own) to [B, H, S, C], [B, G, S, C] twice
    """
    if fuses(qkv_BSQ) and rotary[0].dim() == 2:
        from sparsedial.kernels import triton_heads

        return triton_heads.by_head(qkv_BSQ, norms, rotary, heads, eps)
    head_dim = rotary[0].shape[-1]
    kv_heads = (qkv_BSQ.shape[2] // head_dim - heads) // 2
    if (norms is None or len(norms[0]) == head_dim) and _compiled(qkv_BSQ, *(norms or ()), *rotary):
        return _by_head_compiled(qkv_BSQ, norms or (None, None), rotary, heads, kv_heads, eps)
    if norms is not None and len(norms[0]) > head_dim:
        q, k, v = qkv_BSQ.split([heads * head_dim, kv_heads * head_dim, kv_heads * head_dim], 2)
        q, k = rms_norm(q, norms[0], eps), rms_norm(k, norms[1], eps)
        q, k, v = (x.unflatten(2, (-1, head_dim)).transpose(1, 2) for x in (q, k, v))
        return rotate(q, *rotary), rotate(k, *rotary), v
    q, k, v = qkv_BSQ.unflatten(2, (-1, head_dim)).transpose(1, 2).split([heads, kv_heads, kv_heads], 1)
    if norms is not None:
        q, k = rms_norm(q, norms[0], eps), rms_norm(k, norms[1], eps)
    return rotate(q, *rotary), rotate(k, *rotary), v


def _by_head_compiled(
    qkv_BSQ: Tensor,
    norms: tuple[Tensor | None, Tensor | None],
    rotary: tuple[Tensor, Tensor],
    heads: int,
    kv_heads: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    (sequences, positions, _), head_dim = qkv_BSQ.shape, rotary[0].shape[-1]
    q, k, v = (qkv_BSQ.new_empty(sequences, count, positions, head_dim) for count in (heads, kv_heads, kv_heads))
    native.module.split_heads(
        qkv=qkv_BSQ, q_norm=norms[0], k_norm=norms[1], cosine=rotary[0], sine=rotary[1], q=q, k=k, v=v,
        sequences=sequences, s=positions, heads=heads, kv_heads=kv_heads, c=head_dim, apart=rotary[0].dim() > 2,
        eps=eps, threads=torch.get_num_threads(),
    )  # fmt: skip
    return q, k, v


def rotate(x_BNSC: Tensor, cosine_SC: Tensor, sine_SC: Tensor) -> Tensor:
    """Rotate pairs of channels (c, c + C/2) by their position's angle; each sequence may have its own angles."""
    cosine_SC, sine_SC = cosine_SC.to(x_BNSC.dtype), sine_SC.to(x_BNSC.dtype)
    return x_BNSC * cosine_SC + x_BNSC.roll(x_BNSC.shape[-1] // 2, -1) * sine_SC


def activate(h_TK: Tensor) -> Tensor:
    """silu(gate) * up from their concatenation over the last axis."""
    if fuses(h_TK):
        from sparsedial.kernels import triton_gated

        return triton_gated.activated(h_TK)
    return reference.activate(h_TK)


def add_product(x_BSD: Tensor, y_BSF: Tensor, w_FD: Tensor) -> Tensor:
    """x + y @ w; on a GPU one product that begins with x, where all have one type."""
    if fuses(x_BSD) and x_BSD.dtype == y_BSF.dtype == w_FD.dtype:
        return torch.addmm(x_BSD.flatten(0, -2), y_BSF.flatten(0, -2), w_FD).view(x_BSD.shape)
    return x_BSD + product(y_BSF, w_FD)


def dense_layer(x_BSD: Tensor, norm_D: Tensor, w_in_DK: Tensor, w_out_FD: Tensor, eps: float) -> Tensor:
    """x + swiglu(norm(x))."""
    x_BSD, normed_BSD = norm_beside(x_BSD, norm_D, eps)
    return add_product(x_BSD, activate(product(normed_BSD, w_in_DK)), w_out_FD)
