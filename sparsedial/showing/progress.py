"""Progress of many cells at once: a live display on a terminal, a plain line from time to time elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sparsedial.units import human_count, human_seconds

LIVE_SECONDS = 0.2  # between two updates on a terminal
PLAIN_SECONDS = 15.0  # between two lines elsewhere
PADDING = 2  # spaces between columns


@dataclass(frozen=True, kw_only=True)
class _Cell:
    label: str
    step: int
    steps: int
    loss: float | None
    tokens_per_second: float | None
    joules_per_token: float | None
    estimated: bool  # whether the joules come from stated watts


class Progress:
    """Shows running cells, their progress and the remaining time on standard error; a context manager that tidies up.

    On a terminal: one line per running cell, and one bar for the whole. Elsewhere: a line when a cell ends, and a line
    of all running cells at most every 15 seconds.
    """

    def __init__(
        self, stream: TextIO | None = None, *, live: bool | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._console = Console(file=self._stream, force_terminal=live, highlight=False, markup=False, emoji=False)
        is_live = self._console.is_terminal and not self._console.is_dumb_terminal if live is None else live
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if is_live else None
        self._clock = clock
        self._last_shown = clock()
        self._cells: dict[str, _Cell] = {}
        self._done_seconds = self._total_seconds = 0.0
        self._ended = 0

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.update("", refresh=True)
            self._live.stop()

    def cell(
        self,
        id: str,
        label: str,
        step: int,
        steps: int,
        loss: float | None = None,
        tokens_per_second: float | None = None,
        joules_per_token: float | None = None,
        estimated: bool = False,
    ) -> None:
        """Show the progress of a running cell."""
        self._cells[id] = _Cell(
            label=label,
            step=step,
            steps=steps,
            loss=loss,
            tokens_per_second=tokens_per_second,
            joules_per_token=joules_per_token,
            estimated=estimated,
        )
        self._show()

    def done(self, id: str, text: str) -> None:
        """Show that a cell ended; the text stays on the screen."""
        self._cells.pop(id, None)
        self._ended += 1
        self.note(text)

    def forget(self, id: str) -> None:
        """Stop showing a cell, without a line about it."""
        self._cells.pop(id, None)

    def total(self, done_seconds: float, total_seconds: float) -> None:
        """Show how much of the whole is done, in seconds of expected work."""
        self._done_seconds, self._total_seconds = done_seconds, total_seconds
        self._show()

    def note(self, text: str) -> None:
        """Print a line that stays on the screen."""
        if self._live:
            self._live.console.print(Text(text))
            self._show()
        else:
            self._print(text)

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def _show(self) -> None:
        now = self._clock()
        if now - self._last_shown < (LIVE_SECONDS if self._live else PLAIN_SECONDS):
            return
        self._last_shown = now
        if self._live:
            self._live.update(self._picture(), refresh=True)
        else:
            self._print(self._line())

    @property
    def _share(self) -> float:
        return min(self._done_seconds / self._total_seconds, 1.0) if self._total_seconds > 0 else 0.0

    def _whole(self) -> list[str]:
        """Share done, time left, ended cells, and the rate and energy of all running cells, where known."""
        parts = []
        if self._total_seconds > 0:
            parts += [f"{self._share:4.0%}", _left(self._total_seconds - self._done_seconds)]
        if self._ended:
            parts.append(f"{self._ended} done")
        rates = [cell.tokens_per_second for cell in self._cells.values() if cell.tokens_per_second]
        if rates:
            parts.append(f"{human_count(sum(rates))} tokens/s")
        powers = [
            (cell.tokens_per_second, cell.joules_per_token)
            for cell in self._cells.values()
            if cell.tokens_per_second and cell.joules_per_token
        ]
        if powers:
            watts = sum(rate * joules for rate, joules in powers)
            estimated = any(cell.estimated for cell in self._cells.values())
            parts.append(small_joules(watts / sum(rate for rate, _ in powers), estimated))
        return parts

    def _line(self) -> str:
        running = [" ".join([cell.label, *_facts(cell)]) for cell in self._cells.values()]
        whole = ", ".join(part.strip() for part in self._whole())
        return " · ".join([*([f"[{whole}]"] if whole else []), *running])

    def _picture(self) -> Group:
        shown = _fitting([(cell.label, *_columns(cell)) for cell in self._cells.values()], self._console.width)
        cells = Table.grid(padding=(0, PADDING), expand=True)
        cells.add_column(overflow="ellipsis", no_wrap=True, ratio=1)
        for _ in range(1, max(map(len, shown), default=1)):
            cells.add_column(justify="right", no_wrap=True)
        for label, *columns in shown:
            cells.add_row(Text(label), *columns)
        whole = Table.grid(padding=(0, 2))
        whole.add_column(no_wrap=True)
        whole.add_column(no_wrap=True, overflow="ellipsis")
        whole.add_row(ProgressBar(total=1.0, completed=self._share, width=16), Text("  ".join(self._whole())))
        return Group(cells, whole)


def _fitting(rows: Sequence[Sequence[str]], width: int) -> list[Sequence[str]]:
    """Rows of labels and columns without the last columns that leave no room for the labels; step and loss stay."""
    for count in (5, 4):
        widths = [max(map(len, column)) + PADDING for column in zip(*rows, strict=True)][:count]
        if sum(widths) <= width:
            return [row[:count] for row in rows]
    return [row[:3] for row in rows]


def _left(seconds: float) -> str:
    whole = round(seconds)
    if whole < 0:
        return f"{human_seconds(-whole)} longer than expected"
    return f"{human_seconds(whole) if whole else '0 s'} left"


def _columns(cell: _Cell) -> list[str]:
    return [
        f"{cell.step}/{cell.steps}",
        "" if cell.loss is None else f"loss {cell.loss:.3f}",
        "" if not cell.tokens_per_second else f"{human_count(cell.tokens_per_second)} tokens/s",
        "" if not cell.joules_per_token else small_joules(cell.joules_per_token, cell.estimated),
    ]


def _facts(cell: _Cell) -> list[str]:
    step, *rest = _columns(cell)
    return [f"step {step}", *filter(None, rest)]


def small_joules(value: float, estimated: bool = False) -> str:
    """Joules per token: `0.12 mJ/token`, `23 µJ/token (estimated)` where they come from stated watts."""
    units = (("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9))
    unit, size = next((pair for pair in units if value >= pair[1] * 0.1), units[-1])
    return f"{value / size:.3g} {unit}/token{' (estimated)' if estimated else ''}"
