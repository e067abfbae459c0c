"""Planting a fault: a copy of the package gets the faulty line, and a process begun from this one runs its tests.

The libraries are imported once and each process is a fork of that, so a fault costs its tests and little more.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from tests.faults.fault import Fault

ROOT = Path(__file__).parents[2]
FOLDERS = ("sparsedial", "tests", "benchmarks")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
LIBRARIES = ("numpy", "scipy.optimize", "msgspec", "torch", "torch.export", "tokenizers", "safetensors.torch", "pytest")
OURS = ("sparsedial", "tests", "benchmarks")
TESTS_FAILED = 1  # pytest's exit status
LONGEST_S = 900.0
LOOK_EVERY_S = 0.02


def import_libraries() -> None:
    """Before the first fork: what nearly every test imports, and nothing of ours."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in tests/conftest.py
    for library in LIBRARIES:
        importlib.import_module(library)


class Copy:
    """A copy of the package and its tests, in which one fault is planted at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in FOLDERS:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy(ROOT / name, folder)

    def trouble(self, fault: Fault) -> str | None:
        """None where a test finds the fault, else what happened."""
        file = self.folder / "sparsedial" / fault.file
        text = file.read_text()
        if text.count(fault.line) != 1:
            return f"the line stands {text.count(fault.line)} times in {fault.file}"
        with _changed(file, text.replace(fault.line, fault.becomes)), self._built_again("/csrc/" in fault.file):
            status, said = self._tests(fault.tests)
        if status == TESTS_FAILED and "\nFAILED " in said:
            return None
        return f"no test of {fault.tests} failed" if status == 0 else said[-4000:]

    @contextmanager
    def _built_again(self, needed: bool) -> Iterator[None]:
        """The compiled kernels are those of the faulty source, and afterwards the right ones again."""
        if not needed:
            yield
            return
        libraries = [*self.folder.glob("sparsedial/*/_*.so")]
        right = {library: library.read_bytes() for library in libraries}
        subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=self.folder, check=True)
        yield
        for library in libraries:
            library.unlink()  # written over, it would change under whoever has it loaded
            library.write_bytes(right[library])

    def _tests(self, tests: str) -> tuple[int, str]:
        """The status of pytest in a process of its own, and what it said."""
        with tempfile.TemporaryFile("w+") as said:
            child = os.fork()
            if child == 0:
                _be_pytest(self.folder, tests, said.fileno())
            status = _wait(child)
            said.seek(0)
            return status, said.read()


@contextmanager
def _changed(file: Path, text: str) -> Iterator[None]:
    """The file has this text. Its compiled form goes before and after: it is told apart by whole seconds and a size."""
    before = file.read_text()
    try:
        _forget_compiled(file)
        file.write_text(text)
        yield
    finally:
        _forget_compiled(file)
        file.write_text(before)


def _forget_compiled(file: Path) -> None:
    for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
        compiled.unlink()


def _be_pytest(folder: Path, tests: str, said: int) -> None:
    """Never returns: this process runs the tests of the copy, and all that it says goes into the file."""
    status = 70
    try:
        os.setsid()  # so that all that the tests began can be ended with them
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.chdir(folder)
        os.environ["PYTHONPATH"] = str(folder)
        sys.path[:] = [str(folder), *(place for place in sys.path if Path(place or ".").resolve() != ROOT)]
        for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
            del sys.modules[name]
        import pytest

        main = ModuleType("__main__")  # what a process that a test spawns imports first
        main.__spec__ = importlib.util.find_spec("pytest.__main__")
        main.__file__ = pytest.__file__
        sys.modules["__main__"] = main
        sys.argv = ["pytest"]
        status = pytest.main(["-q", "-x", "-p", "no:cacheprovider", tests])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(int(status))


def _wait(child: int) -> int:
    """The exit status of a process; one that takes too long is ended, and so is all that it began."""
    until = time.monotonic() + LONGEST_S
    try:
        while time.monotonic() < until:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                child = 0
                return os.waitstatus_to_exitcode(status)
            time.sleep(LOOK_EVERY_S)
        return -signal.SIGKILL
    finally:
        if child:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
