"""Where the command line begins: Ctrl-C is one line from here on, also while everything else is being imported."""

from __future__ import annotations

import os
import signal
from types import FrameType

from sparsedial.cli.exits import INTERRUPTED


def main() -> int:
    """Run one command; see `sparsedial.cli.main`."""
    if "_ARGCOMPLETE" in os.environ:
        from sparsedial.cli.completion import complete

        complete()
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # the caller wants no Ctrl-C
        from sparsedial.cli.main import main as run

        return run()
    signal.signal(signal.SIGINT, _leave)
    from sparsedial.cli.main import main as run

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return run()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the answer is out, and Python only tidies up


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: an exception could be lost in a library that is being imported."""
    os.write(2, b"stopped; nothing was kept\n")
    os._exit(INTERRUPTED)
