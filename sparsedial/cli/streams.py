"""Standard streams that can be closed, full or in any locale."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from sparsedial.errors import UserError


class Unheard(io.TextIOWrapper):
    """Standard error that may be full: the work goes on, and what cannot be written is left out.

    Raises: BrokenPipeError where its reader has gone, as any stream does.
    """

    def write(self, text: str, /) -> int:
        """Write, or leave out."""
        with _unless_gone():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be written."""
        with _unless_gone():
            super().flush()


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        pass


def settle_streams() -> None:
    """Replace closed streams, and print what a locale has no letter for as `\\u2026`, as names of files may need too.

    A closed stream is None in Python, and `print` then writes to another one; the next file that is opened would get
    its number. A full standard error ends no command.
    """
    for number in range(3):
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # for as long as the process lives
    elif sys.stderr is sys.__stderr__:
        sys.stderr = Unheard(sys.stderr.buffer, sys.stderr.encoding, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # None, a test's, or a closed one
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def print_answer(text: str) -> None:
    """Print a line or more to standard output, to the last byte.

    Raises: UserError where it is closed or cannot be written; BrokenPipeError where its reader has gone.
    """
    print_part(f"{text}\n")


def print_part(text: str) -> None:
    """Print a part of an answer as it comes, without a new line.

    Raises: as `print_answer`.
    """
    if sys.stdout is None:
        raise UserError("standard output is closed, so the answer could not be printed")
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise UserError(f"cannot write to standard output: {error.strerror}") from error


def print_note(*lines: str) -> None:
    """Print lines to standard error."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def drop_output() -> None:
    """Let what standard output still holds go nowhere: Python writes it when it ends, and would fail then."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
