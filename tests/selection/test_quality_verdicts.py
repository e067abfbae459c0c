"""Documents are left out where datatrove's filters leave them out, but for the differences that docs/data.md names.

`benchmarks/quality_verdicts.py` wrote the verdicts with datatrove 0.10.1.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparsedial.selection.page import Page
from sparsedial.selection.quality import QUALITY_RULES

JUDGED = json.loads(Path(__file__).with_name("quality_verdicts.json").read_text())
FILTERS = {"gopher": ("gopher", "gopher_repeats"), "c4": ("c4",), "fineweb": ("fineweb",)}
PUNCTUATION_IS_NO_WORD = "words are cut at white space: datatrove's 80 % of words with a letter count each comma as one"
SENTENCES_BY_THEIR_ENDS = "a sentence ends with its mark: datatrove cuts with a model of English"
BRACKET_ANYWHERE = "a bracket in any line: datatrove looks at the lines that it keeps"
DIFFERENT = {
    (3, "gopher"): PUNCTUATION_IS_NO_WORD,
    (14, "gopher"): PUNCTUATION_IS_NO_WORD,
    (4, "c4"): SENTENCES_BY_THEIR_ENDS,
    (14, "c4"): SENTENCES_BY_THEIR_ENDS,
    (15, "c4"): SENTENCES_BY_THEIR_ENDS,
    (27, "c4"): BRACKET_ANYWHERE,
}


def leaves_out(family: str, text: str) -> bool:
    page = Page(text)
    return not all(rule.keeps(float(rule.of(page))) for rule in QUALITY_RULES.values() if rule.family == family)


@pytest.mark.parametrize("family", FILTERS)
def test_documents_are_left_out_as_by_datatrove(family):
    theirs = [any(one["verdicts"][name] for name in FILTERS[family]) for one in JUDGED]
    ours = [leaves_out(family, one["text"]) for one in JUDGED]
    different = {(at, family) for at, (mine, other) in enumerate(zip(ours, theirs, strict=True)) if mine != other}
    assert different == {key for key in DIFFERENT if key[1] == family}
    assert 5 < sum(theirs) < len(theirs) - 5


FINEWEB = {
    "line_punct_ratio": "fineweb_line_ends",
    "short_line_ratio": "fineweb_short_lines",
    "char_dup_ratio": "fineweb_duplicate_lines",
    "list_ratio": "fineweb_lists",
}


def test_the_first_rule_of_fineweb_that_a_document_breaks_is_the_same():
    for one in JUDGED:
        page = Page(one["text"])
        broken = (name for name in FINEWEB.values() if not QUALITY_RULES[name].keeps(QUALITY_RULES[name].of(page)))
        assert next(broken, None) == FINEWEB.get(one["verdicts"]["fineweb"])
