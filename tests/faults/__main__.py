"""Plant each fault in a copy of the package and run the tests that must find it: `python -m tests.faults`.

With `--minutes 10` faults are planted for so long, in an order that each day draws anew. One in C has its kernels built
again, which takes a minute.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from pathlib import Path

from tests.faults.planted import FAULTS
from tests.faults.planting import Copy, import_libraries

SIDE_BY_SIDE = 2

copy: Copy  # of each worker process


def _begin(folder: str) -> None:
    global copy
    copy = Copy(Path(tempfile.mkdtemp(dir=folder)))


def _plant(number: int, until: float) -> tuple[str | None, float] | None:
    """What kept the fault of this number from being found, if anything, and the seconds that it took; None if late."""
    began = time.monotonic()
    return (copy.trouble(FAULTS[number]), time.monotonic() - began) if began < until else None


def main() -> int:
    """Say of each fault whether it was found; the exit status says whether all that were planted were."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Plant faults that tests must find.")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no fault after so long")
    until = time.monotonic() + 60 * parser.parse_args().minutes
    numbers = list(range(len(FAULTS)))
    random.Random(date.today().toordinal()).shuffle(numbers)
    import_libraries()
    planted = missed = 0
    with tempfile.TemporaryDirectory() as folder:
        forked = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(SIDE_BY_SIDE, forked, initializer=_begin, initargs=(folder,)) as pool:
            outcomes = {pool.submit(_plant, number, until): number for number in numbers}
            for outcome in as_completed(outcomes):
                if (ended := outcome.result()) is None:
                    continue
                trouble, seconds = ended
                planted, missed = planted + 1, missed + (trouble is not None)
                what = FAULTS[outcomes[outcome]].what
                print(
                    f"{'found' if trouble is None else 'MISSED'}: {what} ({seconds:.0f} s)", trouble or "", flush=True
                )
    print(f"{planted - missed} of {planted} planted faults found")
    if planted < len(FAULTS):
        print(f"{len(FAULTS) - planted} faults were not planted for want of time; `make faults` plants all")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
