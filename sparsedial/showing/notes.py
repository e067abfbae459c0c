"""Notes on standard error about what a command does, left out, or could not do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sparsedial.records.text import SkippedLines
from sparsedial.units import count_words, human_percent

if TYPE_CHECKING:
    from sparsedial.text.prepare import Text


def note(words: str) -> None:
    """Say something of a command's work while it goes on."""
    print(words, file=sys.stderr, flush=True)


def note_skipped(skipped: SkippedLines) -> None:
    """Say which lines of a text were left out."""
    if skipped.lines:
        note(skipped_words(skipped))


def note_not_written(path: Path, why: str) -> None:
    """Say that a file that was asked for is not written, and why."""
    note(f"{path} is not written: {why}")


def text_notes(text: Text) -> list[str]:
    """What was left out of a text, what was mixed into it, and where its tokenizer has few tokens."""
    made, skipped, mixed, selected = text.tokenizer, text.facts.skipped, text.facts.probes, text.facts.selection
    kind, _, size = made.name.partition(":")
    asked = int(size) if kind == "bpe" and size.isdecimal() else 0
    few = f"the text gave only {made.vocab_size:,} of the {asked:,} tokens of {made.name}: no more pairs come twice"
    return [
        *([skipped_words(skipped)] if skipped.lines else []),
        *([f"the selection leaves out {count_words(selected.documents_left_out, 'document')}"] if selected else []),
        *([few] if made.vocab_size < asked else []),
        *([f"{human_percent(mixed.tokens / text.train_tokens)} of the training tokens are probes"] if mixed else []),
    ]


def skipped_words(skipped: SkippedLines) -> str:
    """`skipped 7 lines of the text: a.jsonl, line 3: not JSON …; … and 2 more`."""
    more = skipped.lines - len(skipped.named)
    named = [*skipped.named, *([f"and {more:,} more"] if more else [])]
    return f"skipped {count_words(skipped.lines, 'line')} of the text: {'; '.join(named)}"
