"""Every method is one that the documents explain, of a part that can be turned off."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsedial.pruning.cutting import RULES
from sparsedial.pruning.methods import DEFAULT, METHODS, PART_NAMES, methods_of
from sparsedial.pruning.parts import PARTS, what_goes
from sparsedial.pruning.scores import SCORES
from tests.model.shapes import FAMILIES, UNEQUAL

PAGE = (Path(__file__).parents[2] / "docs" / "turning-off.md").read_text()


def test_every_part_has_methods_and_a_random_control_with_as_many_budgets():
    assert tuple(PARTS) == PART_NAMES
    for part in PART_NAMES:
        (drawn,) = (name for name in methods_of(part) if METHODS[name].drawn)
        every = {budget for name in methods_of(part) for budget in METHODS[name].budgets}
        assert every == set(METHODS[drawn].budgets)
    assert METHODS[DEFAULT].part == "experts"


def test_scores_and_rules_are_of_methods():
    assert set(SCORES) < set(methods_of("experts"))
    assert set(RULES) < set(methods_of("weights"))
    assert {name for name, method in METHODS.items() if method.in_turn == "asked"} == set(SCORES)
    assert {name for name, method in METHODS.items() if method.in_turn == "always"} == set(RULES)


@pytest.mark.parametrize("part", PART_NAMES)
def test_the_page_lists_the_methods_of_each_part(part):
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| {part} |"))
    listed = row.split("|")[2].replace("`", "").replace(",", "").split()
    assert listed == list(methods_of(part))


def test_a_model_is_told_what_can_be_turned_off_in_it():
    assert [words.partition(":")[0] for words in what_goes(UNEQUAL).split("; ")] == list(PART_NAMES)
    assert "experts" not in what_goes(FAMILIES["llama"])
    assert "neurons" not in what_goes(FAMILIES["mixtral"])
