"""What an effect is measured against, as selections of their own, which `study` and `train` read, too: the random part,
and the whole text without copies of held-out text."""

from __future__ import annotations

from pathlib import Path

import polars
from msgspec.structs import replace

from sparsedial.records.record import read, write
from sparsedial.records.selection import SELECT_FILE, Filter, Selected, SelectedManifest
from sparsedial.selection.control import REASON, SEED, control_manifest, copies_of_held_out, random_part
from sparsedial.selection.filters import COPIES_OF_HELD_OUT, EQUAL_TO_TRAIN
from sparsedial.store import whole_folder
from sparsedial.text.manifest import MANIFEST, read_manifest, write_manifest
from sparsedial.text.reading import Reading
from sparsedial.text.splitting import Splitting
from sparsedial.verbs.select.amounts import amount_of, domains_amounts
from sparsedial.verbs.select.settings import SelectSettings

IS_CONTROL = "it is the random part of a measured effect"
IS_FULL = "it is the full text of a measured effect"
OF_ALL = (EQUAL_TO_TRAIN, *COPIES_OF_HELD_OUT)  # filters of each part


def random_selection(
    settings: SelectSettings, answer: Selected, reading: Reading, splitting: Splitting, folder: Path
) -> Selected:
    """The random part as a selection of its own, in `folder`; the one that an earlier start left there.

    Raises: UserError where it cannot be written.
    """
    if (folder / SELECT_FILE).exists():
        return read(folder / SELECT_FILE, Selected)
    chosen = read_manifest(settings.out / MANIFEST).collect()
    train, copies = chosen.filter(polars.col("split") == "train"), copies_of_held_out(chosen)
    wanted = int(train.filter("kept")["bytes"].sum())
    drawn = random_part(reading, splitting, wanted, settings.seed, copies)
    frame = control_manifest(chosen, reading, drawn)
    left_out = Filter(
        name=REASON,
        says="train documents, all but a random share of the bytes",
        source="ours",
        threshold=wanted / int(train["bytes"].sum()),
        removed=amount_of(frame.filter(polars.col("reason") == REASON)),
        examples="",
    )
    record = replace(
        _without_choices(answer, IS_CONTROL),
        keep=left_out.threshold,
        score=REASON,
        seed=settings.seed + SEED,
    )
    return _written(replace(record, filters=(*record.filters, left_out)), frame, folder)


def full_selection(
    settings: SelectSettings, answer: Selected, reading: Reading, folder: Path, what: str = IS_FULL
) -> Selected | None:
    """The whole text without copies of held-out text as a selection in `folder`; None where it has no such copies.

    `what` says what it is for.

    Raises: UserError where it cannot be written.
    """
    if (folder / SELECT_FILE).exists():
        return read(folder / SELECT_FILE, Selected)
    chosen = read_manifest(settings.out / MANIFEST).collect()
    if not copies_of_held_out(chosen):
        return None
    record = replace(_without_choices(answer, what), keep=None, score=None)
    return _written(record, control_manifest(chosen, reading), folder)


def _without_choices(answer: Selected, what: str) -> Selected:
    """The record of a selection without all that it chose; `what` says what it is for."""
    return replace(
        answer,
        near=None,
        filters=tuple(one for one in answer.filters if one.name in OF_ALL),
        effect_reason=what,
        warnings=(),
        side=None,
        keep_by="text",
        quality=(),
        spans=None,
        repeated_spans=None,
        reference=None,
        tasks=(),
        items=None,
        contaminated=None,
        contaminated_reason=what,
    )


def _written(record: Selected, frame: polars.DataFrame, folder: Path) -> Selected:
    """The record with the amounts of its manifest, both written."""
    with whole_folder(folder) as partial:
        written = write_manifest(partial / MANIFEST, frame)
        record = replace(
            record,
            manifest=SelectedManifest(path=str(folder / MANIFEST), digest=written.sha256, bytes=written.bytes),
            kept=amount_of(frame.filter("kept")),
            domains=domains_amounts(frame),
        )
        write(partial / SELECT_FILE, record)
    return record
