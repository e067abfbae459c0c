"""What a process frees it keeps for itself, in a thread too."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, threading, torch
from sparsedial.training.memory import settle_memory
settle_memory()
counts = []

def work():
    for _ in range(16):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(10_000_000)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
print(sum(counts[-2:]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="says nothing to other C libraries")
def test_a_thread_gets_back_the_pages_that_it_freed():
    """Each page of the last two tensors of 40 MB would be mapped anew, some 19,500 in all."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000
