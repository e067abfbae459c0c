"""A smaller share of a text from the manifest of a larger one: the same copies and scores, fewer groups that stay."""

from __future__ import annotations

import polars

from sparsedial.records.selection import ReferenceSide
from sparsedial.selection.choosing import highest
from sparsedial.selection.scores import SCORES, Groups


def narrowed(
    manifest: polars.DataFrame, *, share: float, score: str, seed: int, side: ReferenceSide | None
) -> polars.DataFrame:
    """The manifest with a share of the bytes that other filters left, by the same score; one share of the whole text.

    It is what `choose` keeps when it is asked for this share at once.
    """
    left = (polars.col("split") == "train") & (polars.col("kept") | (polars.col("reason") == score))
    rows = manifest.filter(left).with_columns(nats=polars.col("loss") * polars.col("bytes"))
    groups = rows.group_by("group", maintain_order=True).agg(polars.col("bytes").sum(), polars.col("nats").sum())
    sizes = dict(groups.select("group", "bytes").iter_rows())
    losses = (groups["nats"] / groups["bytes"]).to_list()
    known = Groups(names=list(sizes), seed=seed, losses=losses, side=side)
    staying = highest(sizes, SCORES[score].of(known), share)
    goes = left & ~polars.col("group").is_in(list(staying))
    return manifest.with_columns(
        kept=polars.when(left).then(~goes).otherwise(polars.col("kept")),
        reason=polars.when(left).then(polars.when(goes).then(polars.lit(score))).otherwise(polars.col("reason")),
    )
