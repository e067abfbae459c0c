"""Rotary positions: the angles by which pairs of channels turn, stretched where a shape says so.

S positions, C channels that turn.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsedial.shape.shape import RopeScaling, Shape


def rotary_table(shape: Shape, length: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles. Shapes: two of [S, C], halves repeated; the sine's first half negated.

    Source: Su et al. 2021 (arXiv 2104.09864), in the half-split layout of Hugging Face's Llama
    """
    frequencies = rotary_frequencies(shape).to(device)
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), frequencies)
    factor = attention_factor(shape.rope_scaling)
    cosines, sines = angles.cos() * factor, angles.sin() * factor
    return torch.cat([cosines, cosines], 1), torch.cat([-sines, sines], 1)


def rotary_frequencies(shape: Shape) -> Tensor:
    """Radians per position of each pair of channels, fastest first. Shapes: [C / 2]"""
    pairs = torch.arange(0, shape.rotary_dim, 2, dtype=torch.float32) / shape.rotary_dim
    frequencies = shape.rope_theta**-pairs
    if shape.rope_scaling is None:
        return frequencies
    if shape.rope_scaling.kind == "linear":
        return frequencies / shape.rope_scaling.factor
    stretch = _yarn_stretch if shape.rope_scaling.kind == "yarn" else _llama3_stretch
    share = stretch(shape.rope_scaling, frequencies, shape)
    return frequencies * (1 - share) + frequencies / shape.rope_scaling.factor * share


def _yarn_stretch(scaling: RopeScaling, frequencies: Tensor, shape: Shape) -> Tensor:
    """How much of the stretch each pair takes: none where it turns often in the first context, all where it does not.

    Source: YaRN (arXiv 2309.00071), section 3.2
    """
    channels, base = shape.rotary_dim, math.log(shape.rope_theta)

    def pair_that_turns(times: float) -> float:
        return channels * math.log(scaling.original_context / (times * 2 * math.pi)) / (2 * base)

    low, high = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, channels - 1)
    if low == high:
        high += 0.001
    return ((torch.arange(len(frequencies), dtype=torch.float32) - low) / (high - low)).clamp(0, 1)


def _llama3_stretch(scaling: RopeScaling, frequencies: Tensor, shape: Shape) -> Tensor:
    """The same by Llama 3.1's rule: linear in how often a pair turns in the first context."""
    turns = scaling.original_context * frequencies / (2 * math.pi)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    return ((high - turns) / (high - low)).clamp(0, 1)


def _logit_scale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def attention_factor(scaling: RopeScaling | None) -> float:
    """What YaRN multiplies sines and cosines by."""
    if scaling is None or scaling.kind != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return _logit_scale(scaling.factor, scaling.mscale) / _logit_scale(scaling.factor, scaling.mscale_all_dim)
    return _logit_scale(scaling.factor, 1.0)


def attention_scale(shape: Shape) -> float:
    """What scores are multiplied by before the softmax; latent attention stretches it with the context.

    Source: DeepSeek-V2 (arXiv 2405.04434), section 3.1.4
    """
    scale = shape.head_dim**-0.5
    scaling = shape.rope_scaling
    if shape.latent_attention and scaling is not None and scaling.mscale_all_dim:
        scale *= _logit_scale(scaling.factor, scaling.mscale_all_dim) ** 2
    return scale


def rotate(x_BNSC: Tensor, cosine_SC: Tensor, sine_SC: Tensor) -> Tensor:
    """Turn pairs of channels (c, c + C/2) by their position's angle; the angles may be each sequence's own."""
    cosine_SC, sine_SC = cosine_SC.to(x_BNSC.dtype), sine_SC.to(x_BNSC.dtype)
    return x_BNSC * cosine_SC + x_BNSC.roll(x_BNSC.shape[-1] // 2, -1) * sine_SC
