"""A program in an environment and a process of its own, which answers lines of JSON with lines of JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parent.parent


class Ended(Exception):
    """The program ended instead of answering; its status."""


class Refused(Exception):
    """What a program said before it stopped."""


class Answering:
    """A program that says of itself what it is, in a line, and then answers each line with one until its input ends.

    Its environment is ours where none is given. Errors and logs go to `log`, or to where ours go.
    """

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str] | None = None, log: Path | None = None
    ) -> None:
        with log.open("w") if log else nullcontext() as stderr:
            self._process = subprocess.Popen(
                [*words], cwd=ROOT, env=environment, text=True, process_group=0,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            )  # fmt: skip
        self.pid = self._process.pid
        self.about = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: Any) -> None:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self.pid, signal.SIGCONT)
        self._process.communicate()

    @contextmanager
    def going(self) -> Iterator[None]:
        """Let the program and its children go on; afterwards they are stopped."""
        os.killpg(self.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self.pid, signal.SIGSTOP)

    def ask(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a job.

        Raises: Ended where there is none.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Ended(f"{self._process.args[0]} ended with status {self._process.wait()}")  # pyright: ignore
        return json.loads(line)
