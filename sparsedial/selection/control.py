"""What a selection's effect is measured against: a random part of the train text, as large as what stays, and all.

The random part is drawn from the whole train text, copies included, as one would draw who knows nothing of its
documents. Copies of held-out text are in neither: what is scored on held-out text must not have learned it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import polars

from sparsedial.selection.choosing import highest
from sparsedial.selection.filters import COPIES_OF_HELD_OUT
from sparsedial.selection.scores import Groups, random_scores
from sparsedial.selection.table import UNKNOWN
from sparsedial.text.manifest import printable
from sparsedial.text.reading import Reading
from sparsedial.text.splitting import Splitting

REASON = "random"
SEED = 1_000_003  # added to a selection's own, so that a share that stays at random is another one


def copies_of_held_out(manifest: polars.DataFrame) -> set[int]:
    """The train documents that a selection found to be copies of held-out text, by number."""
    found = manifest["reason"].is_in(COPIES_OF_HELD_OUT).fill_null(False)
    return set(found.arg_true().to_list())


def random_part(
    reading: Reading, splitting: Splitting, wanted_bytes: int, seed: int, without: Set[int] = frozenset()
) -> set[int]:
    """The train documents of a random part, by number: whole groups whose bytes come nearest to those wanted.

    None of those `without` is in it.
    """
    groups: dict[int, str] = {}
    sizes: dict[str, int] = {}
    for number, (entry, split) in enumerate(zip(reading.entries, splitting.splits, strict=True)):
        if split == "train" and number not in without:
            groups[number] = entry.group
            sizes[entry.group] = sizes.get(entry.group, 0) + entry.size
    share = wanted_bytes / sum(sizes.values())
    staying = highest(sizes, random_scores(Groups(names=list(sizes), seed=seed + SEED)), share)
    return {number for number, group in groups.items() if group in staying}


def control_manifest(manifest: polars.DataFrame, reading: Reading, staying: Set[int] | None = None) -> polars.DataFrame:
    """The manifest of the random part, or of the whole text, from that of the selection.

    Documents and splits are the same. Of the train text what is `staying` is kept, or all; copies of held-out text are
    not.
    """
    splits, before, copies = manifest["split"].to_list(), manifest["reason"].to_list(), copies_of_held_out(manifest)
    reasons = [
        reason if split != "train" or number in copies else None if staying is None or number in staying else REASON
        for number, (split, reason) in enumerate(zip(splits, before, strict=True))
    ]
    columns: Mapping[str, polars.Series] = {
        "group": polars.Series([printable(entry.group) for entry in reading.entries], dtype=polars.String),
        "kept": polars.Series([reason is None for reason in reasons], dtype=polars.Boolean),
        "reason": polars.Series(reasons, dtype=polars.String),
    }
    blank = {name: polars.lit(None, manifest.schema[name]) for name in ("duplicate_of", "jaccard", *UNKNOWN)}
    return manifest.with_columns(**columns, **blank)
