"""Notes on standard error about what a command left out."""

from __future__ import annotations

import sys
from pathlib import Path

from sparsedial.records.text import SkippedLines


def note_skipped(skipped: SkippedLines) -> None:
    """Say which lines of a text were left out."""
    if skipped.lines:
        print(skipped_words(skipped), file=sys.stderr, flush=True)


def note_not_written(path: Path, why: str) -> None:
    """Say that a file that was asked for is not written, and why."""
    print(f"{path} is not written: {why}", file=sys.stderr, flush=True)


def skipped_words(skipped: SkippedLines) -> str:
    """`skipped 7 lines of the text: a.jsonl, line 3: not JSON …; … and 2 more`."""
    unit = "line" if skipped.lines == 1 else "lines"
    more = skipped.lines - len(skipped.named)
    named = [*skipped.named, *([f"and {more:,} more"] if more else [])]
    return f"skipped {skipped.lines:,} {unit} of the text: {'; '.join(named)}"
