"""The table of `select`: what was read, what each filter left out, what stays."""

from __future__ import annotations

from sparsedial.cli.rows import aligned, lines
from sparsedial.records.selection import Selected, TextAmount
from sparsedial.units import count_words, human_bytes, human_percent


def select_table(done: Selected) -> str:
    """What was left out, and how to use what stays."""
    removed = [(one.name, one.removed) for one in done.filters if one.removed.documents]
    amounts = [("read", done.read), *((f"  {name}", amount) for name, amount in removed), ("stays", done.kept)]
    cells = aligned([[*_words(amount), human_percent(amount.bytes / done.read.bytes)] for _, amount in amounts])
    shares = [
        (f"  {name}", f"{human_percent(part.kept.bytes / part.read.bytes, 3)} of {human_bytes(part.read.bytes)} stays")
        for name, part in (done.domains or {}).items()
    ]
    folder = done.manifest.path.rpartition("/")[0] or "."
    return lines(
        [
            *zip((name for name, _ in amounts), cells, strict=True),
            ("  held out", f"{count_words(done.held_out.documents, 'document')}, as without a selection"),
            *([("by domain", "")] if shares else []),
            *shares,
            *(("warning", words) for words in done.warnings),
            ("written", f"{done.manifest.path}; read the examples in {folder}/examples.html"),
            ("next", f"sparsedial study {folder} --time 10m"),
        ]
    )


def _words(amount: TextAmount) -> tuple[str, str]:
    return count_words(amount.documents, "document"), human_bytes(amount.bytes)
