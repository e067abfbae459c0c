"""The selections of a study's shares, in its folder: the largest as `select` makes it, the others from its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars
from msgspec.structs import replace

from sparsedial.records.record import read, write
from sparsedial.records.selection import SELECT_FILE, Selected, SelectedManifest
from sparsedial.selection.control import copies_of_held_out
from sparsedial.selection.narrowing import narrowed
from sparsedial.store import whole_folder
from sparsedial.sweep.question import Question
from sparsedial.text.corpus import open_corpus
from sparsedial.text.manifest import MANIFEST, read_manifest, write_manifest
from sparsedial.text.reading import read_corpus
from sparsedial.verbs.select.amounts import amount_of, domains_amounts
from sparsedial.verbs.select.before import selected_before
from sparsedial.verbs.select.random_selection import full_selection
from sparsedial.verbs.select.select import select
from sparsedial.verbs.select.settings import SelectSettings
from sparsedial.verbs.study.select_method import METHODS, asked_shares

FOLDER = "shares"
FULL = "full"
PART_OF_STUDY = "it is a share of a study's text"
FULL_OF_STUDY = "it is the full text of a study"


@dataclass(frozen=True, kw_only=True)
class KeptSelection:
    """A selection in the study's folder."""

    asked: float | None  # the share; None where a filter alone decides
    folder: Path
    record: Selected


def kept_selections(question: Question) -> list[KeptSelection]:
    """The selections of all shares below the full text, made now or by an earlier start; none without a method.

    The largest one is made as `select` makes it, and the others from its manifest, so a reference model learns once.

    Raises: UserError as `select`, and where an earlier start selected from another text.
    """
    method = question.inputs.select
    if method is None:
        return []
    first, *others = (_selection_settings(question, asked) for asked in asked_shares(method, question.inputs.keep))
    whole = selected_before(first)
    if whole is None:
        made = select(first)
        assert isinstance(made, Selected)
        whole = made
    records = [whole, *(_smaller(one, first, whole) for one in others)]
    return [
        KeptSelection(asked=settings.keep, folder=settings.out, record=record)
        for settings, record in zip((first, *others), records, strict=True)
    ]


def whole_selection(question: Question, selections: Sequence[KeptSelection]) -> KeptSelection | None:
    """The study's own text without the copies of held-out text that its shares lack; None where it has no such copies.

    All that the study trains is scored on held-out text, so no part of it may have learned that text.

    Raises: UserError as `read_corpus`, and where it cannot be written.
    """
    if not selections:
        return None
    first = selections[0]
    settings, folder = _selection_settings(question, first.asked), question.out.resolve() / FOLDER / FULL
    if not copies_of_held_out(read_manifest(settings.out / MANIFEST).collect()):
        return None
    if (folder / SELECT_FILE).exists():  # of an earlier start: the text is not read once more
        return KeptSelection(asked=1.0, folder=folder, record=read(folder / SELECT_FILE, Selected))
    record = full_selection(settings, first.record, read_corpus(open_corpus(question.sources)), folder, FULL_OF_STUDY)
    return None if record is None else KeptSelection(asked=1.0, folder=folder, record=record)


def _selection_settings(question: Question, asked: float | None) -> SelectSettings:
    name = question.inputs.select or ""
    method, share = METHODS[name], "filtered" if asked is None else f"{asked:g}"
    return SelectSettings(
        text=question.sources,
        out=question.out.resolve() / FOLDER / f"{name.replace(':', '-')}-{share}",
        quality=method.quality,
        keep=asked,
        score=method.score,
        side=method.side,
        seed=question.inputs.seed,
        device=question.inputs.device,
    )


def _smaller(asked: SelectSettings, first: SelectSettings, whole: Selected) -> Selected:
    """A smaller share, in a folder of its own; the one that an earlier start left there."""
    before = selected_before(asked)
    if before is not None:
        return before
    share = asked.keep
    assert share is not None
    manifest = read_manifest(first.out / MANIFEST).collect()
    frame = narrowed(manifest, share=share, score=asked.score, seed=asked.seed, side=asked.chosen_side)
    removed = amount_of(frame.filter(polars.col("reason") == asked.score))
    with whole_folder(asked.out) as partial:
        written = write_manifest(partial / MANIFEST, frame)
        record = replace(
            whole,
            manifest=SelectedManifest(path=str(asked.out / MANIFEST), digest=written.sha256, bytes=written.bytes),
            keep=share,
            kept=amount_of(frame.filter("kept")),
            domains=domains_amounts(frame),
            filters=tuple(
                replace(one, threshold=share, removed=removed) if one.name == asked.score else one
                for one in whole.filters
            ),
            effect_reason=PART_OF_STUDY,
        )
        write(partial / SELECT_FILE, record)
    return read(asked.out / SELECT_FILE, Selected)
