"""The meter of the device that PyTorch works on."""

from __future__ import annotations

from typing import Any, cast

import torch

from sparsedial.machine.energy import (
    Meter,
    StatedPower,
    gpu_meter,
    processor_meter,
    processor_name,
    stated_gpu_power,
    stated_power,
)


def meter(device: str = "cpu", threads: int = 1) -> Meter:
    """RAPL of the processors, or NVML of PyTorch's current GPU, where it can be read; else stated watts."""
    return gpu_meter(*_card()) if device.startswith("cuda") else processor_meter(threads)


def stated(device: str, threads: int) -> StatedPower:
    """Stated watts, for seconds that no meter counted."""
    why = "not metered"
    if device.startswith("cuda"):
        return stated_gpu_power(_card()[0], why)
    return stated_power(processor_name(), threads, why)


def _card() -> tuple[str, str | None]:
    """Name and UUID of PyTorch's current GPU; NVML, which is NVIDIA's, knows no other maker's by a UUID."""
    found = cast(Any, torch.cuda).get_device_properties(torch.cuda.current_device())
    uuid = None if torch.version.hip else getattr(found, "uuid", None)
    return found.name, None if uuid is None else str(uuid)
