"""The control of a measured effect: a random part of the train text, as large as the part that stays.

It is drawn from the whole train text, copies included, as one would draw who knows nothing of its documents.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars

from sparsedial.selection.choosing import highest
from sparsedial.selection.scores import Groups, random_scores
from sparsedial.selection.table import UNKNOWN
from sparsedial.text.manifest import printable
from sparsedial.text.reading import Reading
from sparsedial.text.splitting import Splitting

REASON = "random"
SEED = 1_000_003  # added to a selection's own, so that a share that stays at random is another one


def random_part(reading: Reading, splitting: Splitting, wanted_bytes: int, seed: int) -> set[int]:
    """The train documents of a random part, by number: whole groups whose bytes come nearest to those wanted."""
    groups: dict[int, str] = {}
    sizes: dict[str, int] = {}
    for number, (entry, split) in enumerate(zip(reading.entries, splitting.splits, strict=True)):
        if split == "train":
            groups[number] = entry.group
            sizes[entry.group] = sizes.get(entry.group, 0) + entry.size
    share = wanted_bytes / sum(sizes.values())
    staying = highest(sizes, random_scores(Groups(names=list(sizes), seed=seed + SEED)), share)
    return {number for number, group in groups.items() if group in staying}


def control_manifest(manifest: polars.DataFrame, reading: Reading, staying: set[int]) -> polars.DataFrame:
    """The manifest of the random part, from that of the selection: the same documents and splits, kept at random."""
    splits, before = manifest["split"].to_list(), manifest["reason"].to_list()
    reasons = [
        (None if number in staying else REASON) if split == "train" else reason
        for number, (split, reason) in enumerate(zip(splits, before, strict=True))
    ]
    columns: Mapping[str, polars.Series] = {
        "group": polars.Series([printable(entry.group) for entry in reading.entries], dtype=polars.String),
        "kept": polars.Series([reason is None for reason in reasons], dtype=polars.Boolean),
        "reason": polars.Series(reasons, dtype=polars.String),
    }
    blank = {name: polars.lit(None, manifest.schema[name]) for name in ("duplicate_of", "jaccard", *UNKNOWN)}
    return manifest.with_columns(**columns, **blank)
