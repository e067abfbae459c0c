"""What each filter of a selection left out."""

from __future__ import annotations

from collections.abc import Iterator

import polars

from sparsedial.records.selection import EXAMPLES_FILE, Filter
from sparsedial.selection.choosing import Choice
from sparsedial.selection.filters import (
    CONTAMINATED,
    EXACT,
    HELD_OUT_EXACT,
    HELD_OUT_NEAR,
    HOLDS_ITEM,
    NEAR,
    REPEATED_SPANS,
    RULES,
    Rule,
)
from sparsedial.selection.quality import QUALITY_RULES
from sparsedial.selection.scores import SCORES
from sparsedial.selection.spans import REASON as SPANS
from sparsedial.text.contamination import RUN_WORDS
from sparsedial.verbs.select.amounts import amount_of
from sparsedial.verbs.select.settings import SelectSettings

SHOWN_UNDER = {HELD_OUT_EXACT: EXACT, HELD_OUT_NEAR: NEAR}  # the examples of one filter stand with those of another


def filters_of(settings: SelectSettings, choice: Choice, frame: polars.DataFrame) -> Iterator[Filter]:
    """Each filter that was asked for; `frame` is the manifest."""
    rules = dict(RULES)
    thresholds: dict[str, float | None] = {NEAR: settings.near, HELD_OUT_NEAR: settings.near}
    if settings.tasks:
        rules[CONTAMINATED] = HOLDS_ITEM
        thresholds[CONTAMINATED] = RUN_WORDS
    for name, near in choice.quality.nearest.items():
        rule = QUALITY_RULES[name]
        rules[name] = Rule(f"train documents with {rule.says}", rule.source)
        thresholds[name] = near.rule.threshold
    if settings.spans is not None:
        rules[SPANS], thresholds[SPANS] = REPEATED_SPANS, settings.spans
    if choice.score is not None:
        score = SCORES[choice.score]
        says = f"train documents that are no copies, all but a share of the bytes; {score.says}"
        rules[choice.score] = Rule(says, score.source)
        thresholds[choice.score] = settings.keep
    for name, rule in rules.items():
        yield Filter(
            name=name,
            says=rule.says,
            source=rule.source,
            threshold=thresholds.get(name),
            removed=amount_of(frame.filter(polars.col("reason") == name)),
            examples=f"{EXAMPLES_FILE}#{SHOWN_UNDER.get(name, name)}",
        )
