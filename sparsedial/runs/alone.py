"""Work in a process of its own, so that its memory can be measured."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from sparsedial.errors import UserError
from sparsedial.runs.spawned import spawn

T = TypeVar("T")


def alone(work: Callable[..., T], *given: Any) -> T:
    """What `work` returns in a new process, which then ends. What is given and returned crosses between the two.

    Raises: UserError where the process is killed, as it is where it needs more memory than there is.
    """
    spawned = spawn(_send, work, given)
    try:
        answer, trace = spawned.pipe.recv()
    except EOFError as error:
        raise UserError(
            "the process that measures memory was killed", hint="there may be too little memory: try a smaller model"
        ) from error
    finally:
        spawned.process.kill()
        spawned.process.join()
    if trace is not None:
        raise RuntimeError(f"measuring memory failed:\n{trace}")
    return answer


def _send(pipe: Connection, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    """Send what `work` returns, or the trace of a bug of ours."""
    _go_first()
    with contextlib.suppress(BrokenPipeError):  # the parent has gone
        try:
            pipe.send((work(*given), None))
        except Exception:  # the parent raises it again
            pipe.send((None, traceback.format_exc()))


def _go_first() -> None:
    """Where memory runs out the system ends this process, not the larger one that waits for it."""
    with contextlib.suppress(OSError):  # another system than Linux
        Path("/proc/self/oom_score_adj").write_text("1000")
