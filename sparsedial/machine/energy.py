"""Energy of a stretch of time: metered where a meter is readable, else stated watts, and always with the source."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

RAPL = Path("/sys/class/powercap")
# Design power by a word in the processor's name, watts for the whole package, with its cores: makers' data sheets.
STATED_WATTS_PER_CORE = {"epyc": 4.5, "xeon": 6.0, "ryzen": 8.0, "core": 8.0, "apple": 4.0, "neoverse": 3.0}
DEFAULT_WATTS_PER_CORE = 6.0


class Meter(Protocol):
    """Gives the joules of the stretch that has just ended."""

    metered: bool
    source: str
    watts: float  # stated, or the average so far

    def joules(self, seconds: float) -> float:
        """Joules of the last `seconds`."""
        ...


@dataclass
class StatedPower:
    """Watts that a data sheet states, times seconds; no measurement."""

    watts: float
    source: str
    metered: bool = False

    def joules(self, seconds: float) -> float:
        """Stated watts times seconds."""
        return self.watts * seconds


class RaplMeter:
    """The package counters of Intel and AMD processors, in microjoules that wrap around."""

    metered = True

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._last = self._read()
        self._spans = [int((zone / "max_energy_range_uj").read_text()) for zone in zones]
        self._joules = self._seconds = 0.0
        self.source = "RAPL package counters"

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]

    def joules(self, seconds: float) -> float:
        """Counted joules since the last call."""
        now = self._read()
        counted = sum((new - old) % span for new, old, span in zip(now, self._last, self._spans, strict=True)) / 1e6
        self._last = now
        self._joules, self._seconds = self._joules + counted, self._seconds + seconds
        return counted

    @property
    def watts(self) -> float:
        """The average so far."""
        return self._joules / self._seconds if self._seconds else 0.0


class NvmlMeter:
    """The energy counter of the first NVIDIA GPU."""

    metered = True
    source = "NVML energy counter of GPU 0"

    def __init__(self, handle: object, read: object) -> None:
        self._handle, self._read = handle, read
        self._last = read(handle)  # type: ignore[operator]
        self._joules = self._seconds = 0.0

    def joules(self, seconds: float) -> float:
        """Counted joules since the last call."""
        now = self._read(self._handle)  # type: ignore[operator]
        counted, self._last = (now - self._last) / 1e3, now
        self._joules, self._seconds = self._joules + counted, self._seconds + seconds
        return counted

    @property
    def watts(self) -> float:
        """The average so far."""
        return self._joules / self._seconds if self._seconds else 0.0


def meter(device: str = "cpu", threads: int = 1) -> Meter:
    """The best meter of this machine for a device: RAPL or NVML where readable, else stated watts."""
    if device.startswith("cuda"):
        counted = _nvml()
        return (
            counted if counted is not None else StatedPower(watts=300.0, source="a GPU's typical board power, stated")
        )
    zones = [zone for zone in sorted(RAPL.glob("*-rapl:?")) if _readable(zone)]
    return RaplMeter(zones) if zones else stated_power(processor_name(), threads)


def stated_power(processor: str, threads: int) -> StatedPower:
    """Watts per busy core by processor family, from makers' package powers divided by cores."""
    lower = processor.lower()
    word = next((word for word in STATED_WATTS_PER_CORE if word in lower), None)
    per_core = STATED_WATTS_PER_CORE[word] if word else DEFAULT_WATTS_PER_CORE
    named = f"typical of {word} processors" if word else "typical of server cores"
    return StatedPower(
        watts=per_core * threads,
        source=f"stated {per_core:g} W a busy core, {named}, {threads} thread(s); no meter is readable",
    )


def processor_name() -> str:
    """The processor's own name, or 'unknown'."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _readable(zone: Path) -> bool:
    try:
        before = int((zone / "energy_uj").read_text())
        int((zone / "max_energy_range_uj").read_text())
        time.sleep(0.01)
        return int((zone / "energy_uj").read_text()) != before
    except (OSError, ValueError):
        return False


def _nvml() -> NvmlMeter | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return NvmlMeter(handle, pynvml.nvmlDeviceGetTotalEnergyConsumption)
    except pynvml.NVMLError:
        return None
