"""What this machine is."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

from sparsedial.machine.energy import processor_name
from sparsedial.records.quantities import Machine

NVIDIA_FIELDS = "name,memory.total"
AMD_NODES = Path("/sys/class/kfd/kfd/topology/nodes")  # what AMD's driver says of processors and GPUs


def describe() -> Machine:
    """Processor, cores, memory, system and GPUs, as every record names them."""
    return Machine(
        processor=processor_name(),
        cores=usable_cores(),
        memory_bytes=machine_bytes(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        gpus=tuple(gpus()),
    )


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """Names of NVIDIA's GPUs with their memory, or of AMD's; none where neither driver answers."""
    return _nvidia_gpus() or _amd_gpus()


def _nvidia_gpus() -> list[str]:
    try:
        answer = subprocess.run(
            ["nvidia-smi", f"--query-gpu={NVIDIA_FIELDS}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def _amd_gpus() -> list[str]:
    """AMD's GPUs by the target of their compilers, such as gfx942; the nodes of processors have none."""
    try:
        nodes = sorted(AMD_NODES.glob("*/properties"), key=lambda path: int(path.parent.name))
        found = [dict(line.split() for line in path.read_text().splitlines()) for path in nodes]
    except (OSError, ValueError):
        return []
    versions = (int(node.get("gfx_target_version", 0)) for node in found)
    return [f"AMD gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}" for version in versions if version]


def machine_bytes() -> int:
    """Memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def process_bytes() -> int:
    """Memory that this process holds now."""
    return _status_bytes("VmRSS")


def peak_process_bytes() -> int:
    """The most memory that this process has held; `getrusage` would include its parent's memory at the fork."""
    return _status_bytes("VmHWM")


def give_back_memory() -> None:
    """Give memory that was freed back to the system; of C libraries but glibc nothing is asked.

    glibc keeps it for later, in pieces that lie between others. Larger tensors do not fit into them, so that a process
    which reads one layer after another comes to hold twice what it uses. It takes some milliseconds.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def _status_bytes(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


class BusyWatch:
    """What kept this machine's cores busy since this object was made."""

    def __init__(self) -> None:
        self._before = _cpu_times()
        self._own_before = os.times()

    def share(self) -> float | None:
        """Busy share, 0 to 1, everything on the machine counted; None where the system does not report it."""
        after = _cpu_times()
        if self._before is None or after is None:
            return None
        total, idle = after[0] - self._before[0], after[1] - self._before[1]
        return (total - idle) / total if total else None

    def others(self) -> float | None:
        """How many cores other programs kept busy; None where the system does not report it.

        Processes that this one began, and that have ended, are not others.
        """
        share, now = self.share(), os.times()
        seconds = now.elapsed - self._own_before.elapsed
        if share is None or not seconds:
            return None
        own = sum(now[:4]) - sum(self._own_before[:4])
        return max(0.0, share * (os.cpu_count() or 1) - own / seconds)


def _cpu_times() -> tuple[int, int] | None:
    try:
        numbers = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    return sum(numbers), numbers[3] + numbers[4]
