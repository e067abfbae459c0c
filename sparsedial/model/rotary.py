"""Rotary positions: the angles by which pairs of channels are rotated, scaled where a shape says so.

S positions, C rotated channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from sparsedial.shape.shape import RopeScaling, Shape


def rotary_table(shape: Shape, length: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles. Shapes: two of [S, C], halves repeated; the sine's first half negated.

    Where only some channels of a head are rotated, the table has all of them; the last of each half stay as they are.

    Source: Su et al. 2021 (arXiv 2104.09864), in the half-split layout of Hugging Face's Llama
    """
    frequencies = rotary_frequencies(shape).to(device)
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), frequencies)
    factor = attention_factor(shape.rope_scaling)
    cosines, sines = angles.cos() * factor, angles.sin() * factor
    still = 0 if shape.latent_attention else (shape.head_dim - shape.rotary_dim) // 2
    cosines, sines = functional.pad(cosines, (0, still), value=1.0), functional.pad(sines, (0, still))
    return torch.cat([cosines, cosines], 1), torch.cat([-sines, sines], 1)


def rotary_frequencies(shape: Shape) -> Tensor:
    """Radians per position of each pair of channels, fastest first. Shapes: [C / 2]"""
    pairs = torch.arange(0, shape.rotary_dim, 2, dtype=torch.float32) / shape.rotary_dim
    frequencies = shape.rope_theta**-pairs
    if shape.rope_scaling is None:
        return frequencies
    if shape.rope_scaling.kind == "linear":
        return frequencies / shape.rope_scaling.factor
    share_of = _yarn_share if shape.rope_scaling.kind == "yarn" else _llama3_share
    share = share_of(shape.rope_scaling, frequencies, shape)
    return frequencies * (1 - share) + frequencies / shape.rope_scaling.factor * share


def _yarn_share(scaling: RopeScaling, frequencies: Tensor, shape: Shape) -> Tensor:
    """The share of the scaling that each pair takes: none with many rotations in the original context, all with few.

    Source: YaRN (arXiv 2309.00071), section 3.2
    """
    channels, base = shape.rotary_dim, math.log(shape.rope_theta)

    def pair_with(rotations: float) -> float:
        return channels * math.log(scaling.original_context / (rotations * 2 * math.pi)) / (2 * base)

    low, high = pair_with(scaling.beta_fast), pair_with(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, channels - 1)
    if low == high:
        high += 0.001
    return ((torch.arange(len(frequencies), dtype=torch.float32) - low) / (high - low)).clamp(0, 1)


def _llama3_share(scaling: RopeScaling, frequencies: Tensor, shape: Shape) -> Tensor:
    """The same by Llama 3.1's rule: linear in a pair's rotations in the original context."""
    rotations = scaling.original_context * frequencies / (2 * math.pi)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    return ((high - rotations) / (high - low)).clamp(0, 1)


def _logit_scale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def attention_factor(scaling: RopeScaling | None) -> float:
    """The factor that YaRN puts on sines and cosines."""
    if scaling is None or scaling.kind != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return _logit_scale(scaling.factor, scaling.mscale) / _logit_scale(scaling.factor, scaling.mscale_all_dim)
    return _logit_scale(scaling.factor, 1.0)


def attention_scale(shape: Shape) -> float:
    """The factor on scores before the softmax; in latent attention it grows with the scaling of the context.

    Source: DeepSeek-V2 (arXiv 2405.04434), section 3.1.4
    """
    scale = shape.head_dim**-0.5
    scaling = shape.rope_scaling
    if shape.latent_attention and scaling is not None and scaling.mscale_all_dim:
        scale *= _logit_scale(scaling.factor, scaling.mscale_all_dim) ** 2
    return scale
