"""Energy of a period: metered where a meter is readable, else stated watts times seconds; always with the source."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sparsedial.machine.devices import device_of_card
from sparsedial.records.evaluation import Joules
from sparsedial.units import count_words

RAPL = Path("/sys/class/powercap")
# Design power by a word in the processor's name, watts for the whole package, with its cores: makers' data sheets.
STATED_WATTS_PER_CORE = {"epyc": 4.5, "xeon": 6.0, "ryzen": 8.0, "core": 8.0, "apple": 4.0, "neoverse": 3.0}
DEFAULT_WATTS_PER_CORE = 6.0
GPU_WATTS = 300.0  # typical board power of a GPU whose own is not known
NO_METER = "no meter is readable"
LOOK_SECONDS = 20.0  # small RAPL counters wrap around after 65 kJ: five minutes at 200 W
LOOKS = 10  # of 10 ms, before a counter is said to stand still
LIVE_SECONDS = 1.0  # between two readings of a meter that is shown


class Power(Protocol):
    """The power of the machine at work, and whether a meter says so: a meter or a profile."""

    @property
    def watts(self) -> float | None:
        """Watts at work; None where nothing was metered yet."""
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
        self._last, self._counted = self._read(), 0.0

    def look(self) -> None:
        """Read the counters within a period, so that none wraps around twice unseen."""
        now = self._read()
        self._counted += sum((new - old) % span for new, old, span in zip(now, self._last, self._spans, strict=True))
        self._last = now

    def joules(self, seconds: float) -> float:
        """Joules counted since the period began, or since the last call; `seconds` is how long that was."""
        self.look()
        counted, self._counted = self._counted, 0.0
        self._joules, self._seconds = self._joules + counted, self._seconds + seconds
        return counted

    @property
    def watts(self) -> float | None:
        """The average of what was metered so far; None where that is nothing."""
        return self._joules / self._seconds if self._joules and self._seconds else None


Meter = StatedPower | CountingMeter


@contextlib.contextmanager
def metered(power: Meter) -> Generator[None]:
    """A period that is metered, so that the average counts it."""
    power.begin()
    began = time.perf_counter()
    yield
    power.joules(time.perf_counter() - began)


@contextlib.contextmanager
def long_period(power: Meter) -> Generator[None]:
    """A period that may take hours: its counters are read now and then. Ask for its joules afterwards."""
    power.begin()
    if not isinstance(power, CountingMeter):
        yield
        return
    ended = threading.Event()

    def keep_looking() -> None:
        while not ended.wait(LOOK_SECONDS):
            power.look()

    looking = threading.Thread(target=keep_looking, daemon=True)
    looking.start()
    try:
        yield
    finally:
        ended.set()
        looking.join()


class LivePower:
    """The power of a meter that is read while it is shown, at most once a second, from the first time on."""

    def __init__(self, power: Meter) -> None:
        self._power, self.metered = power, power.metered
        self._last: float | None = None

    @property
    def watts(self) -> float | None:
        """The average since it was asked first; None until a second after that."""
        now = time.monotonic()
        if self._last is None:
            self._power.begin()
            self._last = now
        elif now - self._last >= LIVE_SECONDS:
            self._power.joules(now - self._last)
            self._last = now
        return self._power.watts


def processor_meter(threads: int = 1) -> Meter:
    """The processors' RAPL counters where all of them are readable, else stated watts of so many threads."""
    zones = [zone for zone in sorted(RAPL.glob("*-rapl:*")) if _is_package(zone)]
    if zones and all(map(_counts, zones)):
        return _rapl(zones)
    return stated_power(processor_name(), threads, _why_not_rapl(zones))


def gpu_meter(name: str, uuid: str | None) -> Meter:
    """The NVML counter of a GPU where it is readable, else the stated board power of a GPU of its name.

    Name and UUID are those that PyTorch has: NVML counts GPUs in another order, and those that are hidden too.
    """
    found = _nvml(uuid)
    return stated_gpu_power(name, found) if isinstance(found, str) else found


def spent(power: Meter, joules: float, low: float | None = None, high: float | None = None) -> Joules:
    """Joules that a meter counted, or a share of them, with their source, and their range where there is one."""
    basis = "measured" if power.metered else "estimated"
    return Joules(joules=joules, low=low, high=high, basis=basis, source=power.source)


def _rapl(zones: list[Path]) -> CountingMeter:
    """The package counters of Intel and AMD processors, in microjoules."""

    def read(name: str) -> list[float]:
        return [int((zone / name).read_text()) / 1e6 for zone in zones]

    return CountingMeter("RAPL package counters", lambda: read("energy_uj"), read("max_energy_range_uj"))


def stated_power(processor: str, threads: int, why: str = NO_METER) -> StatedPower:
    """Watts per busy core by processor family, from makers' package powers divided by cores; `why` no meter is read."""
    lower = processor.lower()
    word = next((word for word in STATED_WATTS_PER_CORE if word in lower), None)
    per_core = STATED_WATTS_PER_CORE[word] if word else DEFAULT_WATTS_PER_CORE
    named = f"typical of {word} processors" if word else "typical of server cores"
    return StatedPower(
        watts=per_core * threads,
        source=f"stated {per_core:g} W a busy core, {named}, {count_words(threads, 'thread')}; {why}",
    )


def stated_gpu_power(name: str, why: str = NO_METER) -> StatedPower:
    """The board power that a GPU's maker states, or a typical one for a name that is not known."""
    known = device_of_card(name)
    if known is None:
        stated = f"stated {GPU_WATTS:g} W, a GPU's typical board power, since that of '{name}' is not known"
        return StatedPower(watts=GPU_WATTS, source=f"{stated}; {why}")
    return StatedPower(watts=known.watts, source=f"stated {known.watts:g} W of board power ({known.source}); {why}")


def processor_name() -> str:
    """The processor's own name, or 'unknown'."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _is_package(zone: Path) -> bool:
    """Whether a zone counts a whole processor; `psys` counts the processor again, and others are parts of it."""
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return False


def _counts(zone: Path) -> bool:
    """Whether a zone's counter can be read and moves; a virtual machine's may stand still."""
    try:
        before = int((zone / "energy_uj").read_text())
        int((zone / "max_energy_range_uj").read_text())
        return any(_moved(zone, before) for _ in range(LOOKS))
    except (OSError, ValueError):
        return False


def _moved(zone: Path, before: int) -> bool:
    time.sleep(0.01)
    return int((zone / "energy_uj").read_text()) != before


def _why_not_rapl(zones: list[Path]) -> str:
    """Why the counters are not read: on most systems the administrator alone may read them."""
    if any(not os.access(zone / "energy_uj", os.R_OK) for zone in zones):
        return f"{NO_METER}, since this user may not read RAPL's energy_uj"
    return NO_METER


def _nvml(uuid: str | None) -> CountingMeter | str:
    """The energy counter of an NVIDIA GPU, in millijoules, or why there is none."""
    if uuid is None:
        return NO_METER
    try:
        import pynvml  # pyright: ignore[reportMissingImports]  # optional: the package nvidia-ml-py
    except ImportError:
        return f"{NO_METER}, since nvidia-ml-py is not installed"
    name = f"GPU-{uuid.removeprefix('GPU-')}"
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(name)
        read = pynvml.nvmlDeviceGetTotalEnergyConsumption
        return CountingMeter(f"NVML energy counter of {name}", lambda: [read(handle) / 1e3], [2.0**64 / 1e3])
    except pynvml.NVMLError as error:
        return f"{NO_METER}: {error}"
