"""Probes in the report, the picture and the short table: what the record says, and nothing without probes."""

from __future__ import annotations

import re

from msgspec.structs import replace

from sparsedial.cli.tables import study_table
from sparsedial.records.quantities import Interval
from sparsedial.showing.figures import FIGURES
from sparsedial.showing.report import compose
from sparsedial.showing.report_probes import probed_models
from sparsedial.showing.rows import best_of, budgets
from tests.showing.synthetic import EXPERTS, bare_record, study_record
from tests.showing.test_figures import drawn, words
from tests.showing.test_report import plain


def test_the_page_shows_each_level_of_the_best_cells_with_chance():
    study = study_record()
    assert study.probes is not None
    (dense, _), (sparse, cell) = probed_models(study, study.probes)
    top = max(budgets(study))
    assert dense == best_of(study, top, 0)
    others = [best_of(study, top, count) for count in EXPERTS[1:]]
    assert sparse == min((row for row in others if row), key=lambda row: row.bounded_loss)
    assert cell.run == sparse.hash
    text = plain(compose(study, {}))
    assert "8 % of the training tokens teach them" in text
    assert "facts: easy 100 12 % 90 % 90 %" in text
    assert "facts: hard 100 12 % 10 % (at chance) 10 % (at chance)" in text
    assert f"dense: arithmetic (easy), facts (easy) and reading (easy); {sparse.experts} experts: arithmetic" in text


def test_page_and_table_say_both_answers_at_equal_loss():
    study = study_record()
    assert study.probes is not None
    page, table = plain(compose(study, {})), study_table(study.answer)
    for effect in (study.probes.facts_at_equal_loss, study.probes.reading_at_equal_loss):
        assert effect.sentence in page
        assert effect.sentence in table
    assert study.probes.facts_at_equal_loss.resolved
    assert "not resolved at this size" in study.probes.reading_at_equal_loss.sentence


def test_the_title_of_the_picture_is_the_finding():
    study = study_record()
    assert study.probes is not None
    assert "more sparsity helps facts; for reading no effect is resolved" in words(drawn("probes", study))
    worse = Interval(mean=0.1, low=0.05, high=0.15)
    reading = replace(study.probes.reading_at_equal_loss, effect_of_sparsity=worse, resolved=True)
    both = replace(study.probes, reading_at_equal_loss=reading)
    assert "more sparsity helps facts and hurts reading" in words(drawn("probes", replace(study, probes=both)))
    nothing = replace(study.probes, facts_at_equal_loss=replace(study.probes.facts_at_equal_loss, resolved=False))
    said = words(drawn("probes", replace(study, probes=nothing)))
    assert "no effect of sparsity on facts and reading is resolved" in said


def test_the_picture_by_sparsity_names_who_is_best_at_what():
    study = study_record()
    assert study.probes is not None
    top = max(budgets(study))
    best = {count: row for count in EXPERTS if (row := best_of(study, top, count))}
    sparsest = max(best)

    def easier(cell, kind, bits):
        levels = {
            level: replace(score, answer_bits_per_byte=replace(score.answer_bits_per_byte, mean=bits))
            for level, score in cell.probes[kind].items()
        }
        return replace(cell, probes={**cell.probes, kind: levels})

    dense, sparse = best[0].hash, best[sparsest].hash
    better = {dense: "reading", sparse: "facts"}
    cells = [easier(cell, better[cell.run], 0.01) if cell.run in better else cell for cell in study.probes.cells]
    said = words(drawn("abilities", replace(study, probes=replace(study.probes, cells=tuple(cells)))))
    assert re.search(rf"{sparsest} experts (are best )?at [a-z ,]*facts", said)
    assert re.search(r"dense (is best )?at [a-z ,]*reading", said)


def test_a_study_without_probes_has_no_word_of_them():
    study = replace(study_record(), probes=None)
    assert "robes" not in plain(compose(study, {})) + study_table(study.answer)
    assert FIGURES["probes"](study) is None
    assert FIGURES["abilities"](study) is None
    assert "robes" not in plain(compose(bare_record(), {}))


def test_a_study_none_of_whose_runs_was_scored_says_so():
    study = study_record()
    assert study.probes is not None
    empty = replace(study, probes=replace(study.probes, cells=()))
    assert FIGURES["probes"](empty) is None
    assert "Arithmetic, facts and reading" in plain(compose(empty, {}))
