"""The table of `evaluate` at settings of the dial: quality, speed and energy of each, a block for each task."""

from __future__ import annotations

from collections.abc import Sequence

from sparsedial.cli.rows import Rows, aligned
from sparsedial.records.evaluation import Evaluation
from sparsedial.showing.settings_scores import Block, blocks, names


def settings_rows(results: Sequence[Evaluation]) -> Rows:
    """A line for each setting, of the loss and then of each task."""
    return [row for block in blocks(results) for row in _rows(block, names(results))]


def _rows(block: Block, settings: Sequence[str]) -> Rows:
    head, *lines = aligned([block.heads, *block.cells])
    return [(block.title, head), *zip((f"  {name}" for name in settings), lines, strict=True)]
