"""A plan by the law of a study that crossed shares of its text counts on the tokens that it kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

import sparsedial
from sparsedial.law.literature import repeated_tokens
from sparsedial.records.record import write
from tests.showing.synthetic import finished, known_selection, study_record
from tests.sweep.shares import crossed_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study's law, profile and record."""
    lab, findings, _ = finished()
    for name, record in (("study", study_record()), ("law", findings.law.law), ("profile", lab.profile)):
        write(tmp_path / f"{name}.json", record)
    return tmp_path


def selected(folder: Path, selection) -> str:
    write(folder / "study.json", replace(study_record(), selection=selection))
    return str(folder)


def fewer(selection, kept: float, tokens: int):
    """The selection with so few tokens in a share."""
    shares = [replace(one, train_tokens=tokens) if one.kept == kept else one for one in selection.shares]
    return replace(selection, shares=tuple(shares))


def test_the_kept_tokens_of_the_best_pair_are_the_data_of_a_plan(folder):
    found = fewer(known_selection(), 0.5, 3_000_000)
    asked = {"law": selected(folder, found), "flops": 5e12}
    plan, stated = sparsedial.plan(**asked), sparsedial.plan(**asked, data_tokens=3e6)
    assert (plan.shape, plan.tokens, plan.predicted_loss) == (stated.shape, stated.tokens, stated.predicted_loss)
    assert plan.tokens > 3_000_000
    law = finished()[1].law.law
    worth = repeated_tokens(3e6, plan.tokens)
    assert plan.predicted_loss.mean == pytest.approx(law.loss(**law.variables(plan.shape, worth)))
    assert "3M tokens of 0.5 of the text" in plan.warnings[-1]
    free = sparsedial.plan(law=selected(folder, None), flops=5e12)
    assert free.predicted_loss.mean < plan.predicted_loss.mean


def test_stated_data_go_before_the_kept_ones(folder):
    plan = sparsedial.plan(law=selected(folder, known_selection()), flops=5e12, data_tokens=1e9)
    assert not any("of the text" in line for line in plan.warnings)


def test_an_undecided_study_counts_on_its_full_text(folder):
    found = crossed_in({}, seed_noise=0.002)
    assert found.undecided
    plan = sparsedial.plan(law=selected(folder, found), flops=5e12)
    assert "tokens of the full text" in plan.warnings[-1]


def test_too_few_tokens_limit_nothing(folder):
    found = fewer(known_selection(), 0.5, 1000)
    plan = sparsedial.plan(law=selected(folder, found), flops=5e12)
    assert not any("of the text" in line for line in plan.warnings)
