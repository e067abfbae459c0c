"""The text of one answer as it comes: whole characters, up to a stop string, and its tokens' log-probabilities."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sparsedial.serving.asks import Reason, Scored, Spent
from sparsedial.serving.entries import Entry, entry_of, prompt_entries
from sparsedial.serving.stopping import Stops
from sparsedial.text.decoding import NewText
from sparsedial.text.token_bytes import TokenBytes
from sparsedial.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Token:
    """The next token of a text."""

    token: int
    scored: Scored | None


@dataclass(frozen=True)
class PromptScores:
    """How likely the tokens of a prompt are, but for its first one."""

    scores: Sequence[Scored]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """That a text is complete."""

    reason: Reason
    spent: Spent
    problem: str | None
    end_token: Scored | None


Event: TypeAlias = PromptScores | Token | Ended


@dataclass(frozen=True, kw_only=True)
class Before:
    """The text that an answer goes on from."""

    text: str
    echo: bool  # whether it is repeated before the answer


class AnswerText:
    """One of the answers: its text up to a stop string, and how it ended.

    With `words` each token has an entry, which comes with the first character of the token's text, however long that is
    held back. What a stop string cuts off has none.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        before: Before,
        stops: Sequence[str],
        words: TokenBytes | None,
    ) -> None:
        self.stops = Stops(stops)
        self.tokens = 0
        self.ended: Ended | None = None
        self._text, self._prompt, self._before, self._words = NewText(tokenizer, prompt), prompt, before, words
        self._begun = False
        self._known = self._said = len(before.text)  # characters from the prompt's first: without and with held ones
        self._prompt_scores: Sequence[Scored] = ()
        self._held = deque[Entry]()  # of text that was not said yet

    def hear(self, event: Event) -> tuple[str, list[Entry]]:
        """What the answer says with this, and the entries of that text."""
        if isinstance(event, PromptScores):
            self._prompt_scores = event.scores
            return "", []
        echo, entries = self._echo()
        text = self._end(event) if isinstance(event, Ended) else self._push(event)
        self._said += len(text)
        return echo + text, entries + self._released()

    @property
    def reason(self) -> Reason | None:
        """Why the answer ended."""
        return "stop" if self.ended and self.stops.found else self.ended and self.ended.reason

    def _echo(self) -> tuple[str, list[Entry]]:
        """The prompt, the first time, where it is repeated."""
        first, self._begun = not self._begun, True
        if not (first and self._before.echo):
            return "", []
        text, words = self._before.text, self._words
        return text, [] if words is None else prompt_entries(text, self._prompt, self._prompt_scores, words)

    def _push(self, event: Token) -> str:
        if self.stops.found:
            return ""  # it was on its way when the string was found
        self.tokens += 1
        self._hold(event.scored)
        piece = self._text.push(event.token)
        self._known += len(piece)
        return self.stops.push(piece)

    def _end(self, event: Ended) -> str:
        self.ended, rest = event, self._text.end()
        self._known += len(rest)
        text = self.stops.push(rest) + self.stops.end()
        if not self.stops.found:
            self._hold(event.end_token, ends=True)
        return text

    def _hold(self, scored: Scored | None, ends: bool = False) -> None:
        """Keep an entry until its text is said."""
        if scored is not None and self._words is not None:
            self._held.append(entry_of(scored, self._words, self._known, ends))

    def _released(self) -> list[Entry]:
        """The entries whose first character is said, or all of them at the end; none of what was cut off."""
        rest = self.ended is not None and not self.stops.found
        found = list[Entry]()
        while self._held and (rest or self._held[0].offset < self._said):
            found.append(self._held.popleft())
        return found
