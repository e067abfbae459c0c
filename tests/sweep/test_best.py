"""The best model of a study comes from its verdict, or else from its cells."""

from __future__ import annotations

from msgspec.structs import replace

from sparsedial.records.plan import NearOptimal
from sparsedial.sweep.best import best_model
from sparsedial.sweep.verdict import undecided
from tests.showing.synthetic import finished

NO_LAW = NearOptimal(sparsity=None, sparsity_reason="no law")


def test_a_verdicts_better_side_is_the_best_model():
    findings = finished()[1]
    verdict = findings.judged.verdicts.flops
    best = best_model(findings.cells, verdict, NO_LAW)
    assert best is not None
    assert (best.shape, best.split) == (verdict.sparse.shape, "test")
    worse = replace(verdict, dense=replace(verdict.dense, loss=replace(verdict.dense.loss, mean=0.1)))
    dense = best_model(findings.cells, worse, NO_LAW)
    assert dense is not None
    assert not dense.shape.experts
    assert not dense.sparsest_tried


def test_an_end_of_the_tried_sizes_and_sparsities_is_on_record():
    findings = finished()[1]
    nothing = undecided("flops", "no time")
    best = best_model(findings.cells, nothing, NO_LAW)
    assert best is not None
    line = {cell: result for cell, result in findings.cells.items() if cell.experts == best.shape.experts}
    width = best.shape.d_model
    cut = {cell: result for cell, result in line.items() if cell.d_model <= width}
    found = best_model(cut, nothing, NO_LAW)
    assert found is not None
    assert (found.sparsest_tried, found.open_size) == (True, "larger")
    assert best.open_size is None


def test_without_a_finished_cell_there_is_no_best_model():
    assert best_model({}, undecided("flops", "no time"), NO_LAW) is None
