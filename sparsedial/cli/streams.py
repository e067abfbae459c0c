"""Standard streams that can be closed, full or in any locale."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

from sparsedial.errors import UserError


def settle_streams() -> None:
    """Replace closed streams, and print what a locale has no letter for as `\\u2026`, as names of files may need too.

    A closed stream is None in Python, and `print` then writes to another one; the next file that is opened would get
    its number.
    """
    for number in range(3):
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # for as long as the process lives
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
    """Print lines to standard error; where that is full nobody can be told."""
    try:
        for line in lines:
            print(line, file=sys.stderr, flush=True)
    except OSError:
        _drop(sys.stderr)


def drop_output() -> None:
    """Let nothing more be written to standard output, so that Python does not try again when it ends."""
    if sys.stdout is not None:
        _drop(sys.stdout)


def _drop(stream: TextIO) -> None:
    """Let what the stream still holds go nowhere: Python writes it when it ends, and fails then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
