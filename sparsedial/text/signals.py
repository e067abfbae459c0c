"""Threads of polars beside our signals."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Signals wait until the block ends, and threads that polars starts in it never receive one.

    Otherwise such a thread would receive a Ctrl-C that the main thread blocks, as it does to start a study's workers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
