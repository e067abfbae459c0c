"""The answer of `select`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars

from sparsedial.machine.hardware import peak_process_bytes
from sparsedial.records.selection import (
    ContaminatedTask,
    ReferenceModel,
    RepeatedSpans,
    Selected,
    SelectedManifest,
)
from sparsedial.records.text import ManifestFile
from sparsedial.selection.bands import FOUND_SHARE, bands_for
from sparsedial.selection.choosing import Choice
from sparsedial.text.manifest import MANIFEST
from sparsedial.text.reading import Reading
from sparsedial.units import count_words, human_percent
from sparsedial.verbs.select.amounts import amount_of, domains_amounts
from sparsedial.verbs.select.filters import filters_of
from sparsedial.verbs.select.settings import FAMILIES, SelectSettings

NOT_MEASURED = "not asked for: --measure trains models to measure it"
NO_TOKENS = "a text has tokens once `study` or `train` chooses a tokenizer"


def answered(
    settings: SelectSettings,
    reading: Reading,
    choice: Choice,
    frame: polars.DataFrame,
    manifest: ManifestFile,
    reference: ReferenceModel | None,
    began: float,
) -> Selected:
    """What was read, what stays, and what each filter left out; `frame` is the manifest."""
    kept = frame.filter("kept")
    return Selected(
        manifest=SelectedManifest(path=str(settings.out / MANIFEST), digest=manifest.sha256, bytes=manifest.bytes),
        text_digest=reading.digest,
        sources=paths_of(settings.text),
        **asked_of(settings),
        read=amount_of(frame),
        kept=amount_of(kept),
        held_out=amount_of(kept.filter(polars.col("split") != "train")),
        tokens_reason=NO_TOKENS,
        domains=domains_amounts(frame),
        filters=tuple(filters_of(settings, choice, frame)),
        skipped_lines=reading.bad.count,
        contaminated=_contaminated(choice) if settings.tasks else None,
        contaminated_reason=None if settings.tasks else "not asked for: --tasks names tasks whose items are looked for",
        effect=None,
        effect_reason=NOT_MEASURED,
        warnings=tuple(_warnings(settings, choice)),
        wall_seconds=time.perf_counter() - began,
        peak_process_bytes=peak_process_bytes(),
        reference=reference,
        repeated_spans=_repeated(choice) if settings.spans is not None else None,
    )


def paths_of(sources: Sequence[str]) -> tuple[str, ...]:
    """The sources as absolute paths."""
    return tuple(os.path.abspath(Path(source).expanduser()) for source in sources)


def asked_of(settings: SelectSettings) -> Mapping[str, Any]:
    """The settings that decide what stays, as `select.json` has them."""
    with_share = settings.keep is not None
    return {
        "near": settings.near,
        "keep": settings.keep,
        "score": settings.score if with_share else None,
        "side": settings.chosen_side,
        "keep_by": settings.keep_by,
        "quality": tuple(family for family in FAMILIES if family in settings.quality),
        "spans": settings.spans,
        "tasks": settings.tasks,
        "items": settings.contaminated if settings.tasks else None,
        "seed": settings.seed,
    }


def _contaminated(choice: Choice) -> tuple[ContaminatedTask, ...]:
    """What of each task stands in the train text."""
    found = choice.contaminated
    return tuple(
        ContaminatedTask(task=task, judged=judged, items=found.items(task), documents=len(found.documents(task)))
        for task, judged in found.judged.items()
    )


def _repeated(choice: Choice) -> RepeatedSpans:
    found = choice.spans
    return RepeatedSpans(documents=found.documents, spans=found.passages, bytes=found.bytes)


def _warnings(settings: SelectSettings, choice: Choice) -> Iterator[str]:
    found = bands_for(settings.near).found(settings.near)
    if found < FOUND_SHARE:
        yield f"only {human_percent(found)} of the pairs that share {settings.near:g} are found: give a higher near"
    across = choice.duplicates.across_held_out
    if across:
        yield (
            f"{count_words(across, 'document')} of one held-out split {'is a copy' if across == 1 else 'are copies'} of"
            " one of the other: held-out text stays as it is, so test is not wholly new after validation"
        )
