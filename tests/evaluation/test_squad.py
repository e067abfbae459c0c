"""Exact match and F1 of SQuAD are those of its official script."""

from __future__ import annotations

import pytest

from sparsedial.evaluation.squad import compute_exact, compute_f1, normalize_answer

# what evaluate-v1.1.py makes of a text: lower case, no punctuation, no articles, single spaces
NORMAL = {
    "The Broncos": "broncos",
    "Denver Broncos.": "denver broncos",
    "  a  cat   and an\tapple\n": "cat and apple",
    "THE": "",
    "theatre": "theatre",  # no article within a word
    "an-other": "another",  # punctuation goes first, so that no article is left
    "U.S.A.": "usa",
    "don't": "dont",
    "$1,000.50": "100050",
    "it’s": "it’s",  # a curly apostrophe is none of string.punctuation
    "Beyoncé": "beyoncé",
    "the the a an": "",
    "vitamin A": "vitamin",
    "": "",
}
# gold answer, answer, exact match, F1
SCORED = [
    ("Denver Broncos", "the denver broncos!", 1, 1.0),
    ("Denver Broncos", "Broncos", 0, 2 / 3),
    ("Denver Broncos", "Carolina Panthers", 0, 0.0),
    ("24–10", "24-10", 0, 0.0),  # a dash is kept, a hyphen goes
    ("cat cat dog", "cat dog dog", 0, 2 / 3),  # each word counts as often as both have it
    ("cat", "cat cat cat cat", 0, 2 / 5),
    ("in the year 1990", "1990", 0, 1 / 2),
    ("blue", "", 0, 0.0),
    ("the", "a", 1, 1.0),  # both are empty once normalised
    ("the", "cat", 0, 0.0),
    ("one two three four", "four three two one", 0, 1.0),  # F1 does not see the order
]


@pytest.mark.parametrize(("text", "normal"), NORMAL.items())
def test_answers_are_normalised_as_the_official_script_does(text, normal):
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(("gold", "answer", "exact", "f1"), SCORED)
def test_exact_match_and_f1_are_the_official_ones(gold, answer, exact, f1):
    assert compute_exact(gold, answer) == exact
    assert compute_f1(gold, answer) == pytest.approx(f1)
