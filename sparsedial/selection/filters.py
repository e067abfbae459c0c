"""The filters by name, which is the manifest's `reason`: what each leaves out, and where its rule comes from.

A score is one more filter, under its own name.
"""

from __future__ import annotations

from dataclasses import dataclass

EXACT, NEAR = "exact", "near"
HELD_OUT_EXACT, HELD_OUT_NEAR = "held_out_exact", "held_out_near"
COPIES_OF_HELD_OUT = (HELD_OUT_EXACT, HELD_OUT_NEAR)
EQUAL_TO_TRAIN = "equal_to_train"
CONTAMINATED = "contaminated"
LEE = "Lee et al. 2022, arXiv 2107.06499"


@dataclass(frozen=True)
class Rule:
    """What a filter leaves out."""

    says: str
    source: str


HOLDS_ITEM = Rule(
    "train documents that hold a run of 13 words of a task's item", "Brown et al. 2020, arXiv 2005.14165, appendix C"
)
REPEATED_SPANS = Rule(
    "train documents of which more than this share is passages of 50 words and more that stand in documents before",
    LEE,
)
RULES = {
    EQUAL_TO_TRAIN: Rule(
        "held-out documents that equal a train document apart from white space, with and without a selection",
        "ours, docs/text.md",
    ),
    HELD_OUT_EXACT: Rule("train documents that equal a held-out one", LEE),
    HELD_OUT_NEAR: Rule("train documents that are near copies of a held-out one", LEE),
    EXACT: Rule("train documents that equal an earlier one", LEE),
    NEAR: Rule("train documents that are near copies of an earlier one that stays", f"{LEE}; Broder 1997"),
}
