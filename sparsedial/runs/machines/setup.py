"""What a worker's results depend on beside its jobs, and how a worker of another machine may differ."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import socket
from collections.abc import Iterable

from sparsedial.machine.energy import processor_name
from sparsedial.records.launch import Setup
from sparsedial.records.recipe import RECIPE_VERSION
from sparsedial.version import __version__

DECISIVE = ("torch", "numpy")  # with another version a run may begin with other weights, or round elsewhere


def host_name() -> str:
    """The name of this machine: of a node as Slurm calls it, else its host name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def setup_here() -> Setup:
    """The setup of this process, which trains on the CPU."""
    import torch

    from sparsedial.kernels import native

    built = native.library_file()
    return Setup(
        versions={"sparsedial": __version__, **{name: _version(name) for name in DECISIVE}},
        recipe_version=RECIPE_VERSION,
        kernels=native.kind("cpu"),
        build="" if built is None or native.module is None else hashlib.sha256(built.read_bytes()).hexdigest()[:12],
        instructions=torch.backends.cpu.get_cpu_capability(),
        processor=processor_name(),
        python=platform.python_version(),
    )


def _version(package: str) -> str:
    """Without the name of a build, like the `+cpu` of PyTorch's."""
    return importlib.metadata.version(package).partition("+")[0]


def refusal(study: Setup, worker: Setup) -> str | None:
    """What differs where a worker's runs would not be the study's; None where they would."""
    names = dict.fromkeys([*study.versions, *worker.versions])
    pairs = [
        *((name, study.versions.get(name), worker.versions.get(name)) for name in names),
        ("recipe version", study.recipe_version, worker.recipe_version),
        ("kernels", study.kernels, worker.kernels),
    ]
    return _differing(pairs)


def warning(study: Setup, worker: Setup) -> str | None:
    """What differs where equal runs are rounded otherwise; None where nothing does.

    Rounding grows in a run: after 600 steps other instructions moved losses by 1e-7 to 7e-3 nats.
    """
    return _differing(
        [
            ("build of the kernels", study.build, worker.build),
            ("instructions", study.instructions, worker.instructions),
            ("processor", study.processor, worker.processor),
            ("python", study.python, worker.python),
        ]
    )


def _differing(pairs: Iterable[tuple[str, object, object]]) -> str | None:
    found = [f"{name} {theirs} instead of {ours}" for name, ours, theirs in pairs if ours != theirs]
    return ", ".join(found) or None
