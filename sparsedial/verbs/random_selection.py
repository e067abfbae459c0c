"""The random part of a measured effect, as a selection of its own: `study` and `train` read it, too."""

from __future__ import annotations

from pathlib import Path

import polars
from msgspec.structs import replace

from sparsedial.records.record import read, write
from sparsedial.records.selection import SELECT_FILE, Filter, Selected, SelectedManifest
from sparsedial.selection.control import REASON, SEED, control_manifest, random_part
from sparsedial.selection.filters import EQUAL_TO_TRAIN
from sparsedial.store import whole_folder
from sparsedial.text.manifest import MANIFEST, read_manifest, write_manifest
from sparsedial.text.reading import Reading
from sparsedial.text.splitting import Splitting
from sparsedial.verbs.select_settings import SelectSettings
from sparsedial.verbs.selected_amounts import amount_of, domains_amounts

IS_CONTROL = "it is the random part of a measured effect"


def random_selection(
    settings: SelectSettings, answer: Selected, reading: Reading, splitting: Splitting, folder: Path
) -> Selected:
    """The random part as a selection of its own, in `folder`; the one that an earlier start left there.

    Raises: UserError where it cannot be written.
    """
    if (folder / SELECT_FILE).exists():
        return read(folder / SELECT_FILE, Selected)
    chosen = read_manifest(settings.out / MANIFEST).collect()
    train = chosen.filter(polars.col("split") == "train")
    wanted = int(train.filter("kept")["bytes"].sum())
    drawn = random_part(reading, splitting, wanted, settings.seed)
    frame = control_manifest(chosen, reading, drawn)
    left_out = Filter(
        name=REASON,
        says="train documents, all but a random share of the bytes",
        source="ours",
        threshold=wanted / int(train["bytes"].sum()),
        removed=amount_of(frame.filter(polars.col("reason") == REASON)),
        examples="",
    )
    with whole_folder(folder) as partial:
        written = write_manifest(partial / MANIFEST, frame)
        record = replace(
            answer,
            manifest=SelectedManifest(path=str(folder / MANIFEST), digest=written.sha256, bytes=written.bytes),
            near=None,
            keep=left_out.threshold,
            score=REASON,
            seed=settings.seed + SEED,
            kept=amount_of(frame.filter("kept")),
            domains=domains_amounts(frame),
            filters=(*(one for one in answer.filters if one.name == EQUAL_TO_TRAIN), left_out),
            effect_reason=IS_CONTROL,
            warnings=(),
            side=None,
            keep_by="text",
            quality=(),
            spans=None,
            repeated_spans=None,
            reference=None,
        )
        write(partial / SELECT_FILE, record)
    return record
