"""The one exception that users are meant to see, missing packages, names that were meant, and what Ctrl-C leaves."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130  # exit statuses
AGAIN = "run the same command again to continue"
MARKED = re.compile(r"<([a-z][a-z_.]*)>")


class UserError(Exception):
    """Bad input: what was wrong, with the value, and at most one way out.

    `field` names the setting that was wrong, as Python spells it. A text may name others as `<max_experts>`: the
    command line shows them as flags. Any other exception that leaves the package is our bug and keeps its traceback.
    """

    def __init__(self, problem: str, hint: str | None = None, field: str | None = None) -> None:
        self._problem, self._hint, self.field = problem, hint, field
        super().__init__(f"{field}: {self.problem}" if field else self.problem)

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str | None, str | None]]:
        """As it crosses to another process: whole, with its marks."""
        return type(self), (self._problem, self._hint, self.field)

    @property
    def problem(self) -> str:
        """What was wrong."""
        return MARKED.sub(r"\1", self._problem)

    @property
    def hint(self) -> str | None:
        """The way out."""
        return None if self._hint is None else MARKED.sub(r"\1", self._hint)

    @property
    def marked(self) -> tuple[str, str | None]:
        """Problem and hint with the other fields that they name still marked, without the field at fault."""
        return self._problem, self._hint

    def on_command_line(self) -> tuple[str, str | None]:
        """Problem and hint, their fields spelled as flags."""
        problem = f"<{self.field}>: {self._problem}" if self.field else self._problem
        return with_flags(problem), None if self._hint is None else with_flags(self._hint)


class RankLost(UserError):
    """A process or a machine that trained with this one has gone: the input was not bad, so the exit status is 1."""


def with_flags(text: str) -> str:
    """A text with the fields that it marks spelled as flags."""
    return MARKED.sub(lambda match: _flag(match[1]), text)


def _flag(field: str) -> str:
    head, dot, rest = field.partition(".")
    return f"--{head.replace('_', '-')}{dot}{rest}"


def nearest(name: str, known: Iterable[str], most: int = 1) -> str | None:
    """A hint that names the known words closest to `name`, at most so many, or None when none is close."""
    close = [f"'{word}'" for word in difflib.get_close_matches(name, list(known), n=most, cutoff=0.5)]
    return f"did you mean {' or '.join(close)}?" if close else None


def require_known(word: str, known: Iterable[str], field: str) -> None:
    """Raises: UserError with the nearest word that is known, or all of them."""
    words = tuple(known)
    if word not in words:
        hint = nearest(word, words) or f"known are {', '.join(words)}"
        raise UserError(f"'{word}' is not known", hint=hint, field=field)


@contextmanager
def about(field: str) -> Iterator[None]:
    """Errors within it that name no setting are about this one."""
    try:
        yield
    except UserError as error:
        if error.field is not None:
            raise
        raise UserError(*error.marked, field=field) from error


@contextmanager
def needs(package: str, extra: str) -> Iterator[None]:
    """Around the imports of an optional package, which one of our extras installs.

    Raises: UserError where it is missing.
    """
    try:
        yield
    except ImportError as missing:
        raise UserError(f"the package '{package}' is missing", hint=f"pip install 'sparsedial[{extra}]'") from missing


@contextmanager
def keeping(what: str, path: Path) -> Iterator[None]:
    """A Ctrl-C within it says that `what` is kept, if `path` is there."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if path.exists():
            stop.add_note(f"{what} kept: {AGAIN}")
        raise
