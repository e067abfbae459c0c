"""What the dial page receives: the planner's answers, with their texts."""

from __future__ import annotations

from sparsedial.records.plan import Position, Positions, Race
from sparsedial.records.record import Record


class Choice(Record, frozen=True, kw_only=True):
    """A law or a device to choose, by name, with what a person reads."""

    name: str
    words: str


class Tick(Record, frozen=True, kw_only=True):
    """A place on an axis and its label."""

    value: float
    text: str


class SettingPoint(Record, frozen=True, kw_only=True):
    """A measured setting of a checkpoint, as a point of a chart."""

    name: str
    active_parameters: int
    loss: float  # nats per token


class PageSettings(Record, frozen=True, kw_only=True):
    """The settings of the checkpoint that the page was opened for: a table, and points beside the law's line."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    points: tuple[SettingPoint, ...]  # fewest active parameters first
    ticks: tuple[Tick, ...]  # of active parameters, wider than any chart
    note: str


class PageStart(Record, frozen=True, kw_only=True):
    """What the page receives first."""

    law: str
    laws: tuple[Choice, ...]
    devices: tuple[Choice, ...]
    study: bool
    state: dict[str, str]
    settings: PageSettings | None  # null where no checkpoint was given, or its settings are not measured


class Told(Record, frozen=True, kw_only=True):
    """A figure's text, and a second line: its range, or a remark; empty without one."""

    text: str
    more: str = ""


class PositionWords(Record, frozen=True, kw_only=True):
    """The texts of a position of the dial."""

    sparsity: str
    short: str
    shape: str
    loss: Told
    gap: Told
    parameters: Told
    active: Told
    tokens: Told
    time: Told
    energy: Told
    money: Told
    memory: Told
    serving: Told
    amounts: dict[str, str]  # by currency: the same budget as one would type it there, where that is known


class PagePosition(Position, frozen=True, kw_only=True):
    """A position with its texts."""

    words: PositionWords


class PageChart(Record, frozen=True, kw_only=True):
    """The chart along the dial: the loss of each position, or with a target loss its cost."""

    axis: str
    log: bool
    values: tuple[float, ...]
    low: tuple[float, ...]  # as `high`: empty where the law has no interval
    high: tuple[float, ...]
    beyond: tuple[float, ...]  # how far each value lies from the best one: by this, laws can be compared
    beyond_axis: str


class PageDial(Positions, frozen=True, kw_only=True):
    """All positions with their texts, the finding in lines, the equivalent command, and the table as CSV."""

    positions: tuple[PagePosition, ...]
    law: str
    words: str
    more: tuple[str, ...]
    gap_label: str
    chart: PageChart
    caption: str  # law, budget and bounds, for the picture
    command: str
    csv: str
    unknown_amounts: dict[str, str]  # by currency: what is missing to know the budget in it


class PageRace(Race, frozen=True, kw_only=True):
    """The crossover with its text, and its axis."""

    words: str
    gap: tuple[float, ...]  # dense minus sparse
    axis: str
    ticks: tuple[Tick, ...]


class PageProblem(Record, frozen=True, kw_only=True):
    """Why a question has no answer, and the fields at fault. Texts name others as `<devices>`: the page has labels."""

    error: str
    hint: str  # empty without one
    fields: tuple[str, ...]
