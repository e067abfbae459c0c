"""What this process holds, and what else keeps the machine busy."""

from __future__ import annotations

import os
import platform

import pytest

from sparsedial.machine import hardware
from sparsedial.machine.hardware import give_back_memory, gpus, process_bytes

PIECE, PIECES = 100_000, 500  # bytes; pieces that glibc takes from its heap, and keeps


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give memory back as they see fit")
def test_freed_memory_goes_back_to_the_system():
    held = [bytearray(PIECE) for _ in range(PIECES)]
    between = held[:: PIECES // 10]  # so that what is freed lies in pieces
    del held
    kept = process_bytes()
    give_back_memory()
    assert kept - process_bytes() > 0.8 * PIECE * PIECES
    assert len(between) == 10


def test_gpus_of_amd_are_named_where_nvidias_tool_is_missing(monkeypatch, tmp_path):
    for number, version in enumerate((0, 90402, 90010, 110000)):  # a processor, an MI300X, an MI250X, an RX 7900
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "properties").write_text(f"cpu_cores_count 0\ngfx_target_version {version}\n")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(hardware, "AMD_NODES", tmp_path)
    assert gpus() == ["AMD gfx942", "AMD gfx90a", "AMD gfx1100"]
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / "properties").write_text("no pairs\nof words here\n")
    assert gpus() == []
    monkeypatch.setattr(hardware, "AMD_NODES", tmp_path / "none")
    assert gpus() == []


def test_the_cores_that_other_programs_keep_busy(monkeypatch):
    """Of four cores three are busy, and this process and those that it began took half a core's seconds."""
    counted = iter([(1000, 500), (1400, 600), (1400, 600)])
    own = iter([os.times_result((10.0, 1.0, 2.0, 0.0, 100.0)), os.times_result((10.5, 1.5, 3.0, 0.0, 104.0))])
    monkeypatch.setattr(hardware, "_cpu_times", lambda: next(counted))
    monkeypatch.setattr(os, "times", lambda: next(own))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    watch = hardware.BusyWatch()
    assert watch.others() == pytest.approx(3.0 - 0.5)


def test_nothing_is_said_of_others_where_the_system_does_not_report_it(monkeypatch):
    monkeypatch.setattr(hardware, "_cpu_times", lambda: None)
    assert hardware.BusyWatch().others() is None
