"""What this process holds."""

from __future__ import annotations

import platform

import pytest

from sparsedial.machine.hardware import give_back_memory, process_bytes

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
