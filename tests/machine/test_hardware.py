"""What this process holds."""

from __future__ import annotations

import platform
from types import SimpleNamespace

import pytest
import torch

from sparsedial.machine.hardware import device_bytes, give_back_memory, process_bytes

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


def test_the_memory_of_a_gpu_is_that_of_the_one_pytorch_sees(monkeypatch):
    seen = {"cuda": SimpleNamespace(total_memory=24 * 10**9)}  # the driver's tool may list another one first
    monkeypatch.setattr(torch.cuda, "get_device_properties", seen.__getitem__)
    assert device_bytes("cuda") == 24 * 10**9
