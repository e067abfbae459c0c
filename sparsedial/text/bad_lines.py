"""Lines that are not text: a few are left out and named, many are refused."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sparsedial.errors import UserError

MOST_SHARE = 0.01  # of a file's lines that may be bad
HOPELESS = 100  # bad lines after which a file of mostly bad ones is not read to its end
NAMED = 5  # bad lines that a record names


class NotUtf8(UserError):
    """Text in another encoding."""


@dataclass
class BadLines:
    """The bad lines of one reading of a corpus."""

    count: int = 0
    named: list[str] = field(default_factory=list)  # the first ones: file, line and reason

    def add(self, file: FileLines) -> None:
        """Add those of a file that was read to its end."""
        self.count += file.bad
        self.named += [error.problem for error in file.first[: NAMED - len(self.named)]]


@dataclass
class FileLines:
    """The lines of a file that were read, and those of them that are bad."""

    strict: bool = False  # refuse the first one
    read: int = 0
    bad: int = 0
    first: list[UserError] = field(default_factory=list)
    last: str = ""  # the plain line that was left out last

    def skip(self, error: UserError) -> None:
        """Leave out a line.

        Raises: UserError where it may not be left out.
        """
        if self.strict:
            raise error
        self.bad += 1
        if len(self.first) < NAMED:
            self.first.append(error)
        if self.bad > max(HOPELESS, self.read / 2):
            raise self._refusal("the file was not read further")

    def lose(self, count: int) -> None:
        """Further lines that are lost with one that is bad."""
        self.read += count
        self.bad += count

    def close(self) -> None:
        """The file was read to its end.

        Raises: UserError where too many of its lines are bad.
        """
        if self.bad > MOST_SHARE * self.read:
            raise self._refusal(f"more than {MOST_SHARE:.0%} are not skipped")

    def _refusal(self, reason: str) -> UserError:
        first = self.first[0]
        if self.bad == 1:
            return first
        return type(first)(f"{first.problem}; {self.bad:,} of {self.read:,} lines are bad: {reason}", first.hint)


BINARY_HINT = "leave this file out, or, where it is UTF-16: iconv -f utf-16le -t utf-8"


def checked(text: bytes, where: str, offset: int = 0, hint: str = BINARY_HINT) -> bytes:
    """The same text.

    Raises: UserError where it holds a NUL byte or is not UTF-8.
    """
    if (nul := text.find(b"\0")) >= 0:
        raise UserError(f"{where}: binary, not text: a NUL byte at offset {offset + nul}", hint=hint)
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(text, error, where, offset) from error
    return text


def not_utf8(data: bytes, error: UnicodeDecodeError, where: str, offset: int = 0) -> NotUtf8:
    """The error for a byte that is not UTF-8."""
    byte = data[error.start] if error.start < len(data) else 0
    return NotUtf8(
        f"{where}: not UTF-8: byte 0x{byte:02x} at offset {offset + error.start}",
        hint="convert it, for example with: iconv -f latin1 -t utf-8",
    )


def good_lines(part: bytes, path: Path, offset: int, lines: FileLines) -> bytes:
    """The next part of a plain file without its bad lines; of a line longer than a part, only the bad parts go.

    Raises: UserError where they may not be left out.
    """
    begun = lines.read  # a part may begin in the middle of a line
    lines.read += part.count(b"\n")
    try:
        return checked(part, str(path))
    except UserError:
        kept = [
            _good(line, f"{path}, line {begun + number}", place, lines) for number, line, place in _lines(part, offset)
        ]
        return b"".join(kept)


def _lines(part: bytes, offset: int) -> Iterator[tuple[int, bytes, int]]:
    """Its lines with their numbers and offsets."""
    for number, line in enumerate(io.BytesIO(part), start=1):
        yield number, line, offset
        offset += len(line)


def _good(line: bytes, where: str, offset: int, lines: FileLines) -> bytes:
    """The line, or nothing where it is bad."""
    try:
        return checked(line, where, offset)
    except UserError as error:
        if where != lines.last:  # of a line in several parts, the first bad one counts
            lines.last = where
            lines.skip(error)
        return b""
