"""Plant each fault in a copy of the package and run the tests that must find it: `python -m tests.faults`. For one in C
the kernels are built again, which takes a minute.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.fault import Fault
from tests.faults.planted import FAULTS

ROOT = Path(__file__).parents[2]
TESTS_FAILED = 1  # pytest's exit status
SIDE_BY_SIDE = 2


def found(fault: Fault) -> str | None:
    """None where a test finds the fault, else what happened."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("sparsedial", "tests", "benchmarks"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, copy)
        file = copy / "sparsedial" / fault.file
        text = file.read_text()
        if text.count(fault.line) != 1:
            return f"the line stands {text.count(fault.line)} times in {fault.file}"
        file.write_text(text.replace(fault.line, fault.becomes))
        if "/csrc/" in fault.file:
            subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=copy, check=True)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", fault.tests]
        done = subprocess.run(
            command, cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True, check=False
        )
        if done.returncode == TESTS_FAILED and "\nFAILED " in done.stdout:
            return None
        return f"no test of {fault.tests} failed" if done.returncode == 0 else done.stdout[-2000:] + done.stderr[-2000:]


def main() -> int:
    """Say of each fault whether it was found; the number of those that were not."""
    missed = 0
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for fault, trouble in zip(FAULTS, pool.map(found, FAULTS), strict=True):
            print(f"{'found' if trouble is None else 'MISSED'}: {fault.what}", trouble or "", flush=True)
            missed += trouble is not None
    print(f"{len(FAULTS) - missed} of {len(FAULTS)} planted faults found")
    return missed


if __name__ == "__main__":
    sys.exit(main())
