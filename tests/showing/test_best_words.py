"""The answer stands first: the best sparsity, then sparse against dense, then what to do next and why."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sparsedial.cli.tables import study_table
from sparsedial.records.study import Study
from sparsedial.showing.best_words import best_headline, best_sentences, next_sentence
from sparsedial.showing.report import compose
from sparsedial.showing.rows import best_cell

from .synthetic import bare_record, study_record
from .test_report import plain


def with_best(**changes) -> Study:
    study = study_record()
    return replace(study, best=replace(study.best, **changes))


def test_page_and_table_begin_with_the_answer_the_verdict_and_the_next_command():
    study = study_record()
    page, table = plain(compose(study, {})), study_table(study.answer)
    for text in (page.partition("</title>")[2] or page, table):
        places = [text.index(part) for part in (best_headline(study), "At equal FLOPs", "At equal seconds", study.next)]
        assert places == sorted(places)
        assert text.index(study.next) < text.index("relative error" if text is not table else "cells")
    assert table.startswith("answer ")


def test_the_best_at_the_edge_is_said_to_be_open_and_the_next_command_tries_sparser():
    study = with_best(sparsest_tried=True)
    assert "the sparsest one, so the best may lie beyond" in best_headline(study)
    assert "a sparser model" in next_sentence(study)


def test_the_best_inside_has_the_interval_of_the_laws_samples():
    study = with_best(sparsest_tried=False, sparsity_interval=(0.75, 0.9375), sparsity_interval_confidence=0.9)
    assert best_headline(study) == "The best sparsity is 0.9375 (2 of 32 experts)"
    assert "between 0.75 and 0.9375 (90 % interval)" in " ".join(best_sentences(study))
    assert "sparser" not in next_sentence(study)


def test_a_study_without_a_law_or_a_verdict_answers_with_its_best_cell_and_says_what_is_not_known():
    study = bare_record()
    best = study.best
    assert best is not None
    lowest = best_cell(study, best.budget_flops)
    assert (best.shape.experts, best.shape.d_model) == (lowest.experts, lowest.d_model)
    said = " ".join(best_sentences(study))
    assert "validation loss" in said
    assert "The best sparsity has no interval: no law could be fitted" in said


@pytest.mark.parametrize("side", ["smaller", "larger"])
def test_a_size_at_the_end_of_those_tried_is_said(side: str):
    assert f"No {side} model was tried" in " ".join(best_sentences(with_best(open_size=side)))


def test_a_file_of_an_earlier_version_begins_with_its_verdict():
    study = replace(study_record(), best=None)
    assert best_headline(study) == "Sparse wins at equal FLOPs; undecided at equal seconds"
    assert best_sentences(study) == []
