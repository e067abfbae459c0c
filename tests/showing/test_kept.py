"""Shares of the text in the report, the picture and the short table: what the record says, and nothing without."""

from __future__ import annotations

from msgspec.structs import replace

from sparsedial.cli.tables import study_dry_table, study_table
from sparsedial.showing.figures import FIGURES
from sparsedial.showing.report import compose
from sparsedial.sweep.expect import dry_run
from tests.showing.synthetic import bare_record, finished, known_selection, study_record
from tests.showing.test_figures import drawn
from tests.showing.test_figures import words as written
from tests.showing.test_report import plain
from tests.sweep.shares import crossed_in, crossing


def words(figure) -> str:
    """All that is written above a picture, with plain spaces."""
    return written(figure).replace("\xa0", " ")


def test_page_and_table_say_the_best_pair_and_whether_the_best_sparsity_moves():
    study, found = study_record(), known_selection()
    page, table = plain(compose(study, {})), study_table(study.answer)
    for sentence in (found.sentence, found.repeats_sentence, found.equal_total.sentence):
        assert sentence in page
        assert sentence in table
    assert "best pair is the sparse model on 0.5 of the text" in page
    assert "with 0.25 of the text the best sparsity moves towards sparse" in page
    assert "Less text, and the best model for it" in page
    assert "chosen by random, with 3 seeds each" in page
    for share in found.shares[1:]:
        assert share.folder in page


def test_the_table_of_a_budget_has_each_share_with_its_difference():
    study, found = study_record(), known_selection()
    page = plain(compose(study, {}))
    top = found.budgets_flops[-1]
    for gap in (gap for gap in found.sparse_minus_dense if gap.budget_flops == top and gap.kept < 1):
        number = f"{gap.difference.mean:+.3f}".replace("-", "−")
        assert number in page
    assert "25 % kept" in page


def test_without_a_selection_nothing_is_said_of_it():
    study = bare_record()
    assert "Less text" not in compose(study, {})
    assert "less text" not in study_table(study.answer)
    assert FIGURES["kept_shares"](study) is None


def test_the_title_of_the_picture_is_the_finding():
    study = study_record()
    said = words(drawn("kept_shares", study))
    assert "the sparse model on 50 % of the text is best; less text moves the best sparsity towards sparse" in said
    alike = replace(study, selection=crossed_in({}, seed_noise=0.002))
    said = words(drawn("kept_shares", alike))
    assert "it is undecided which share of the text and which model are best together, and whether less text" in said
    moved = {(1.0, "sparse"): -0.05, (1.0, "dense"): -0.05, (0.5, "sparse"): 0.05}
    said = words(drawn("kept_shares", replace(study, selection=crossed_in(moved, seed_noise=0.001))))
    assert "best together is undecided; less text moves the best sparsity towards dense" in said
    full = {(1.0, "dense"): -0.05}
    said = words(drawn("kept_shares", replace(study, selection=crossed_in(full, seed_noise=0.001))))
    assert "the dense model on the full text is best" in said


def test_the_table_of_a_dry_run_says_runs_and_time():
    lab = finished()[0]
    cost = dry_run(lab, 10.0, 20.0)
    assert "kept shares" not in study_dry_table(cost)
    runs = crossing().runs(lab.layout.budgets)
    said = study_dry_table(replace(cost, kept_runs=runs, kept_seconds=120.0, select_seconds=30.0))
    assert f"{runs} runs on kept shares of the text, 2 min 00 s of this time, and about 30 s to select them" in said
