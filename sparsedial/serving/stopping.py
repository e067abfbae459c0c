"""Text that ends before the first of some strings: what may still become one of them is held back."""

from __future__ import annotations

from collections.abc import Sequence


class Stops:
    """The text of an answer, a piece at a time, up to the string that is complete first."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings, self._held, self.found = tuple(strings), "", False

    def push(self, piece: str) -> str:
        """What can be said now; nothing once a string was found.

        Of strings that end at the same character, the one that begins first counts: so it does not matter how the text
        is cut into pieces.
        """
        if self.found:
            return ""
        text = self._held + piece
        places = ((text.find(string), string) for string in self._strings)
        ends = [(at + len(string), at) for at, string in places if at >= 0]
        if ends:
            self.found, self._held = True, ""
            return text[: min(ends)[1]]
        kept = max((_begun(text, string) for string in self._strings), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def end(self) -> str:
        """What was held back, when the text has ended."""
        held, self._held = self._held, ""
        return held


def _begun(text: str, string: str) -> int:
    """How many characters at the end of a text are a beginning of a string."""
    longest = min(len(text), len(string) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(string[:length])), 0)
