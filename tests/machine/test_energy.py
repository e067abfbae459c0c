"""Energy is that of the whole processor or of the GPU in use, and never 0 for want of a reading."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from sparsedial.kernels import metering
from sparsedial.machine import energy
from sparsedial.machine.devices import DEVICES, device_of_card
from sparsedial.machine.energy import CountingMeter, LivePower, StatedPower, gpu_meter, long_period, processor_meter

SPAN = 1000.0  # joules


class Zones:
    """RAPL's folders, whose counters run at 20 W each; time passes where something sleeps."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.seconds, self.folders = 0.0, [folder / f"intel-rapl:{number}" for number in range(len(names))]
        for zone, name in zip(self.folders, names, strict=True):
            zone.mkdir()
            (zone / "name").write_text(f"{name}\n")
            (zone / "max_energy_range_uj").write_text(f"{SPAN * 1e6:.0f}\n")
        self.pass_by(1.0)

    def pass_by(self, seconds: float) -> None:
        """Let some seconds pass."""
        self.seconds += seconds
        for zone in self.folders:
            (zone / "energy_uj").write_text(f"{int(20e6 * self.seconds) % int(SPAN * 1e6)}\n")


@pytest.fixture
def zones(tmp_path, monkeypatch):
    def of(*names: str) -> Zones:
        made = Zones(tmp_path, list(names))
        monkeypatch.setattr(energy, "RAPL", tmp_path)
        monkeypatch.setattr(energy.time, "sleep", made.pass_by)
        return made

    return of


def test_stated_power_is_no_measurement():
    power = StatedPower(watts=5.0, source="stated")
    assert power.joules(3.0) == 15.0
    assert not power.metered
    assert processor_meter(1).source


def test_a_counter_wraps_around_and_forgets_what_others_used():
    readings = iter([[90.0], [5.0], [20.0], [26.0]])
    counter = CountingMeter("a counter", lambda: next(readings), [100.0])
    assert counter.joules(3.0) == 15.0  # 90 to 105, which is 5 again
    counter.begin()
    assert counter.joules(1.0) == 6.0
    assert counter.watts == 21.0 / 4


def test_a_counter_has_no_watts_before_it_is_read():
    assert CountingMeter("a counter", lambda: [5.0], [100.0]).watts is None


def test_a_long_period_counts_every_turn_of_a_counter(monkeypatch):
    monkeypatch.setattr(energy, "LOOK_SECONDS", 0.001)
    counted, looked = [0.0], energy.threading.Event()

    def read() -> list[float]:
        looked.set()
        return [counted[0] % 100.0]

    counter = CountingMeter("a counter", read, [100.0])
    with long_period(counter):
        for _ in range(5):
            counted[0] += 60.0
            for _ in range(2):  # the second look began after the counter moved
                looked.clear()
                assert looked.wait(5.0)
    assert counter.joules(1.0) == pytest.approx(300.0)


def test_a_meter_that_is_shown_is_read_once_a_second_from_the_first_time_on(monkeypatch):
    clock, counted = [0.0], [500.0]
    monkeypatch.setattr(energy.time, "monotonic", lambda: clock[0])
    live = LivePower(CountingMeter("a counter", lambda: [counted[0]], [1e9]))
    counted[0] = 600.0  # before anything is shown
    assert live.watts is None
    clock[0], counted[0] = 0.5, 610.0
    assert live.watts is None
    clock[0], counted[0] = 2.0, 640.0
    assert live.watts == 20.0


def test_only_whole_processors_are_counted(zones):
    """`psys` counts the processor again, and the others are parts of it."""
    made = zones("package-0", "psys", "core", "package-1")
    power = processor_meter(1)
    power.begin()
    made.pass_by(3.0)
    assert power.joules(3.0) == pytest.approx(2 * 20.0 * 3)
    assert power.metered


def test_more_than_ten_processors_are_counted(zones):
    made = zones(*(f"package-{number}" for number in range(12)))
    power = processor_meter(1)
    power.begin()
    made.pass_by(1.0)
    assert power.joules(1.0) == pytest.approx(12 * 20.0)


def test_a_machine_with_one_unreadable_processor_is_not_metered(zones, monkeypatch):
    made = zones("package-0", "package-1")
    secret = made.folders[1] / "energy_uj"
    readable, open_text = energy.os.access, Path.read_text

    def read_text(path: Path, *given: object) -> str:
        if path == secret:
            raise PermissionError(path)
        return open_text(path)

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(energy.os, "access", lambda path, mode: path != secret and readable(path, mode))
    power = processor_meter(1)
    assert isinstance(power, StatedPower)
    assert "may not read RAPL" in power.source


class NVMLError(Exception):
    """Of the fake module."""


def fake_nvml(millijoules: dict[str, float]) -> types.ModuleType:
    """NVML with GPUs of these UUIDs."""
    module = types.ModuleType("pynvml")

    def handle(uuid: str) -> str:
        if uuid not in millijoules:
            raise NVMLError("Not Found")
        return uuid

    module.NVMLError = NVMLError  # type: ignore[attr-defined]
    module.nvmlInit = lambda: None  # type: ignore[attr-defined]
    module.nvmlDeviceGetHandleByUUID = handle  # type: ignore[attr-defined]
    module.nvmlDeviceGetHandleByIndex = lambda index: list(millijoules)[index]  # type: ignore[attr-defined]
    module.nvmlDeviceGetTotalEnergyConsumption = lambda found: millijoules[found]  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize("prefix", ["", "GPU-"])
def test_the_gpu_that_is_metered_is_the_one_that_pytorch_uses(monkeypatch, prefix):
    """Others may be hidden from PyTorch, and NVML counts those too."""
    counted = {"GPU-aa": 0.0, "GPU-bb": 0.0}
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(counted))
    used = types.SimpleNamespace(name="NVIDIA H100 80GB HBM3", uuid=f"{prefix}bb")
    monkeypatch.setattr(metering.torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(metering.torch.cuda, "get_device_properties", lambda index: used)
    power = metering.meter("cuda", 1)
    counted |= {"GPU-aa": 9e6, "GPU-bb": 5e3}
    assert power.joules(1.0) == 5.0
    assert power.metered
    assert power.source == "NVML energy counter of GPU-bb"


@pytest.mark.parametrize(
    ("name", "uuid", "installed", "watts", "says"),
    [
        ("NVIDIA H100 80GB HBM3", "cc", True, 700.0, "NVIDIA H100 SXM datasheet); no meter is readable: Not Found"),
        ("NVIDIA H100 80GB HBM3", "aa", False, 700.0, "nvidia-ml-py is not installed"),
        ("NVIDIA H100 PCIe", None, True, 300.0, "typical board power, since that of 'NVIDIA H100 PCIe' is not known"),
    ],
)
def test_a_gpu_without_a_meter_has_the_watts_of_its_name(monkeypatch, name, uuid, installed, watts, says):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml({"GPU-aa": 0.0}) if installed else None)
    power = gpu_meter(name, uuid)
    assert (power.watts, power.metered) == (watts, False)
    assert says in power.source


@pytest.mark.parametrize(
    ("card", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("Tesla T4", "t4"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA T400 4GB", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-PCIE-40GB", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA H200 NVL", None),
    ],
)
def test_a_card_is_known_by_the_name_that_its_driver_gives_it(card, name):
    assert device_of_card(card) is (name and DEVICES[name])
