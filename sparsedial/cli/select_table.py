"""The table of `select`: what was read, what each filter left out, what stays."""

from __future__ import annotations

from shlex import quote

from sparsedial.cli.effect_table import effect_rows
from sparsedial.cli.rows import aligned, lines, under
from sparsedial.records.selection import (
    ContaminatedTask,
    DomainAmounts,
    ReferenceModel,
    RepeatedSpans,
    Selected,
    SelectionPipeline,
    TextAmount,
)
from sparsedial.units import count_words, human_bytes, human_count, human_percent, human_seconds


def select_table(done: Selected) -> str:
    """What was left out, and how to use what stays."""
    removed = [(one.name, one.removed) for one in done.filters if one.removed.documents]
    amounts = [("read", done.read), *((f"  {name}", amount) for name, amount in removed), ("stays", done.kept)]
    cells = aligned([[*_words(amount), human_percent(amount.bytes / done.read.bytes)] for _, amount in amounts])
    shares = [(f"  {name}", _domain_words(part)) for name, part in (done.domains or {}).items()]
    folder = done.manifest.path.rpartition("/")[0] or "."
    return lines(
        [
            *zip((name for name, _ in amounts), cells, strict=True),
            ("  held out", f"{count_words(done.held_out.documents, 'document')}, as without a selection"),
            *([("by domain", "")] if shares else []),
            *shares,
            *([("scored by", _reference_words(done.reference))] if done.reference else []),
            *([("passages", _spans_words(done.repeated_spans))] if done.repeated_spans else []),
            *under("items", [_items_words(one) for one in done.contaminated or ()]),
            *(effect_rows(done.effect) if done.effect else []),
            *(("warning", words) for words in done.warnings),
            ("written", f"{done.manifest.path}; read the examples in {folder}/examples.html"),
            ("next", f"sparsedial study {quote(folder)} --time 10m"),
        ]
    )


def pipeline_table(made: SelectionPipeline) -> str:
    """Where the script lies, and what runs it."""
    return lines(
        [
            ("written", f"{made.file}, for {made.peer} {made.written_for}"),
            ("next", made.command),
            ("stays", f"will lie in {made.kept}"),
        ]
    )


def _words(amount: TextAmount) -> tuple[str, str]:
    return count_words(amount.documents, "document"), human_bytes(amount.bytes)


def _domain_words(part: DomainAmounts) -> str:
    """How much of a domain stays, and its share of the train text before and after."""
    stays = f"{human_percent(part.kept.bytes / part.read.bytes, 3)} of {human_bytes(part.read.bytes)} stays"
    if part.share_before is None or part.share_after is None:
        return stays
    return f"{stays}; {human_percent(part.share_before, 3)} of train before, {human_percent(part.share_after, 3)} after"


def _items_words(one: ContaminatedTask) -> str:
    """How much of a task stands in the train text."""
    return (
        f"{one.task}: {one.items:,} of {count_words(one.judged, 'item')}, in {count_words(one.documents, 'document')}"
    )


def _spans_words(found: RepeatedSpans) -> str:
    """How much of the train text stood in documents before."""
    passages, documents = count_words(found.spans, "passage"), count_words(found.documents, "document")
    return f"{passages} of 50 words and more in {documents} stood before, {human_bytes(found.bytes)}"


def _reference_words(model: ReferenceModel) -> str:
    """The model that scored the documents, and its cost."""
    return (
        f"a model that learned from {human_count(model.tokens)} tokens, for {model.flops:.3g} FLOPs in"
        f" {human_seconds(model.seconds)}"
    )
