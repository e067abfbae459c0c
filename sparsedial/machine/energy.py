"""Energy of a period: metered where a meter is readable, else stated watts times seconds; always with the source."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sparsedial.records.evaluation import Joules
from sparsedial.units import count_words

RAPL = Path("/sys/class/powercap")
# Design power by a word in the processor's name, watts for the whole package, with its cores: makers' data sheets.
STATED_WATTS_PER_CORE = {"epyc": 4.5, "xeon": 6.0, "ryzen": 8.0, "core": 8.0, "apple": 4.0, "neoverse": 3.0}
DEFAULT_WATTS_PER_CORE = 6.0


class Power(Protocol):
    """The power of the machine at work, and whether a meter says so: a meter or a profile."""

    @property
    def watts(self) -> float:
        """Watts at work."""
        ...

    @property
    def metered(self) -> bool:
        """Whether they are measured, not stated."""
        ...


@dataclass
class StatedPower:
    """Watts that a data sheet states, times seconds; not a measurement."""

    watts: float
    source: str
    metered: bool = False

    def begin(self) -> None:
        """Begin a period; there is nothing to read."""

    def joules(self, seconds: float) -> float:
        """Stated watts times seconds."""
        return self.watts * seconds


class CountingMeter:
    """Energy counters, each of which wraps around at its span."""

    metered = True

    def __init__(self, source: str, read: Callable[[], list[float]], spans: list[float]) -> None:
        self.source = source
        self._read, self._spans = read, spans
        self._joules = self._seconds = 0.0
        self.begin()

    def begin(self) -> None:
        """Begin a period; what was counted before does not belong to it."""
        self._last = self._read()

    def joules(self, seconds: float) -> float:
        """Joules counted since the last call; `seconds` is how long that was."""
        now = self._read()
        counted = sum((new - old) % span for new, old, span in zip(now, self._last, self._spans, strict=True))
        self._last = now
        self._joules, self._seconds = self._joules + counted, self._seconds + seconds
        return counted

    @property
    def watts(self) -> float:
        """The average so far."""
        return self._joules / self._seconds if self._seconds else 0.0


Meter = StatedPower | CountingMeter


def meter(device: str = "cpu", threads: int = 1) -> Meter:
    """The best meter of this machine for a device: RAPL or NVML where readable, else stated watts."""
    if device.startswith("cuda"):
        counted = _nvml()
        return (
            counted if counted is not None else StatedPower(watts=300.0, source="a GPU's typical board power, stated")
        )
    zones = [zone for zone in sorted(RAPL.glob("*-rapl:?")) if _readable(zone)]
    return _rapl(zones) if zones else stated_power(processor_name(), threads)


def spent(power: Meter, joules: float, low: float | None = None, high: float | None = None) -> Joules:
    """Joules that a meter counted, or a share of them, with their source, and their range where there is one."""
    basis = "measured" if power.metered else "estimated"
    return Joules(joules=joules, low=low, high=high, basis=basis, source=power.source)


def _rapl(zones: list[Path]) -> CountingMeter:
    """The package counters of Intel and AMD processors, in microjoules."""

    def read(name: str) -> list[float]:
        return [int((zone / name).read_text()) / 1e6 for zone in zones]

    return CountingMeter("RAPL package counters", lambda: read("energy_uj"), read("max_energy_range_uj"))


def stated_power(processor: str, threads: int) -> StatedPower:
    """Watts per busy core by processor family, from makers' package powers divided by cores."""
    lower = processor.lower()
    word = next((word for word in STATED_WATTS_PER_CORE if word in lower), None)
    per_core = STATED_WATTS_PER_CORE[word] if word else DEFAULT_WATTS_PER_CORE
    named = f"typical of {word} processors" if word else "typical of server cores"
    return StatedPower(
        watts=per_core * threads,
        source=f"stated {per_core:g} W a busy core, {named}, {count_words(threads, 'thread')}; no meter is readable",
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


def _nvml() -> CountingMeter | None:
    """The energy counter of the first NVIDIA GPU, in millijoules, or None."""
    try:
        import pynvml  # pyright: ignore[reportMissingImports]  # optional
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        read = pynvml.nvmlDeviceGetTotalEnergyConsumption
        return CountingMeter("NVML energy counter of GPU 0", lambda: [read(handle) / 1e3], [2.0**64 / 1e3])
    except pynvml.NVMLError:
        return None
