"""What the dial page receives: the planner's answers, with their texts."""

from __future__ import annotations

from sparsedial.records.plan import Position, Positions, Race
from sparsedial.records.record import Record


class PageStart(Record, frozen=True, kw_only=True):
    """What the page receives first."""

    law: str
    laws: tuple[str, ...]
    devices: tuple[str, ...]
    study: bool
    state: dict[str, str]


class PositionWords(Record, frozen=True, kw_only=True):
    """The texts of a position of the dial."""

    sparsity: str
    short: str
    loss: str
    gap: str
    parameters: str
    active: str
    tokens: str
    time: str
    energy: str
    money: str
    memory: str
    serving: str
    shape: str


class PagePosition(Position, frozen=True, kw_only=True):
    """A position with its texts."""

    words: PositionWords


class PageDial(Positions, frozen=True, kw_only=True):
    """All positions with their texts, the finding, the equivalent command, and the table as CSV."""

    positions: tuple[PagePosition, ...]
    words: str
    command: str
    csv: str


class PageRace(Race, frozen=True, kw_only=True):
    """The crossover with its text, and the label of its axis."""

    words: str
    axis: str
