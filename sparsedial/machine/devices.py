"""Devices by name, from their makers' published peaks, and the share of the peak that training is assumed to reach."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from sparsedial.errors import UserError, nearest


@dataclass(frozen=True, kw_only=True)
class Device:
    """One accelerator as its maker states it."""

    name: str
    flops_per_second: float  # dense bf16 matrix products (fp16 where there is no bf16), no sparsity tricks
    memory_bytes: float
    bytes_per_second: float
    watts: float  # board power at full load
    source: str


# Shares of the bf16 peak that training reaches: low, middle, high. Dense: Llama 3 405B reports 0.38 to 0.43 (arXiv
# 2407.21783, table 4); small models on one device reach less. Sparse: DeepSeek-V3 took 2.664 M H800-hours for 14.8 T
# tokens at 37 B active (arXiv 2412.19437), 6 N D over that is 0.35 of the bf16 peak, though much of it ran in fp8; in
# plain bf16 routing and memory traffic leave less. Stated, not measured: a study's own profile is better.
UTILISATION = {"dense": (0.30, 0.40, 0.50), "sparse": (0.18, 0.28, 0.38)}

DEVICES = {
    device.name: device
    for device in (
        Device(
            name="t4",
            flops_per_second=65e12,
            memory_bytes=16e9,
            bytes_per_second=320e9,
            watts=70,
            source="NVIDIA T4 datasheet",
        ),
        Device(
            name="v100",
            flops_per_second=125e12,
            memory_bytes=32e9,
            bytes_per_second=900e9,
            watts=300,
            source="NVIDIA V100 SXM2 datasheet",
        ),
        Device(
            name="rtx3090",
            flops_per_second=71e12,
            memory_bytes=24e9,
            bytes_per_second=936e9,
            watts=350,
            source="NVIDIA Ampere GA102 whitepaper, fp32 accumulation",
        ),
        Device(
            name="rtx4090",
            flops_per_second=165e12,
            memory_bytes=24e9,
            bytes_per_second=1008e9,
            watts=450,
            source="NVIDIA Ada whitepaper, fp32 accumulation",
        ),
        Device(
            name="l40s",
            flops_per_second=362e12,
            memory_bytes=48e9,
            bytes_per_second=864e9,
            watts=350,
            source="NVIDIA L40S datasheet",
        ),
        Device(
            name="a100",
            flops_per_second=312e12,
            memory_bytes=80e9,
            bytes_per_second=2039e9,
            watts=400,
            source="NVIDIA A100 80GB SXM datasheet",
        ),
        Device(
            name="h100",
            flops_per_second=989e12,
            memory_bytes=80e9,
            bytes_per_second=3350e9,
            watts=700,
            source="NVIDIA H100 SXM datasheet",
        ),
        Device(
            name="h200",
            flops_per_second=989e12,
            memory_bytes=141e9,
            bytes_per_second=4800e9,
            watts=700,
            source="NVIDIA H200 SXM datasheet",
        ),
        Device(
            name="b200",
            flops_per_second=2250e12,
            memory_bytes=180e9,
            bytes_per_second=8000e9,
            watts=1000,
            source="NVIDIA B200 SXM datasheet",
        ),
        Device(
            name="mi300x",
            flops_per_second=1307e12,
            memory_bytes=192e9,
            bytes_per_second=5300e9,
            watts=750,
            source="AMD Instinct MI300X datasheet",
        ),
    )
}


def find_device(name: str) -> Device:
    """A device by its name, written in any case, with or without dashes and blanks.

    Raises: UserError for an unknown one, with the nearest names.
    """
    key = name.lower().replace("-", "").replace(" ", "").replace("_", "").removeprefix("nvidia").removesuffix("sxm")
    if key not in DEVICES:
        raise UserError(f"no device named '{name}'", hint=nearest(key, DEVICES) or f"known are {', '.join(DEVICES)}")
    return DEVICES[key]


# In the name of a card that draws another power than the one of DEVICES: a slower form, a laptop's, a part of one.
OTHER_FORMS = {"pcie", "nvl", "laptop", "mobile", "mig", "ti", "super"}


def device_of_card(card: str) -> Device | None:
    """The device that a driver's name such as `NVIDIA H100 80GB HBM3` means; None for other cards and other forms."""
    words = re.split(r"[\s_-]+", card.lower())
    if OTHER_FORMS.intersection(words):
        return None
    names = {*words, *(first + second for first, second in pairwise(words))}  # RTX 4090 is two words
    return next((device for name, device in DEVICES.items() if name in names), None)
