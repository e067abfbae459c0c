"""What a study concludes from its law."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from sparsedial.planning.candidates import rungs
from sparsedial.sweep.findings import _crossover
from sparsedial.sweep.grid import lay
from tests.planning.test_search import law_with
from tests.sweep.test_grid import DRAFT, PROFILE


def test_the_crossover_is_looked_for_among_the_shapes_that_a_plan_by_the_study_considers():
    setup = SimpleNamespace(layout=replace(DRAFT, cells=lay(DRAFT)), profile=PROFILE)
    found, why = _crossover(setup, law_with(0.05))  # type: ignore[arg-type]
    widths = rungs(DRAFT.ladder, DRAFT.experts).d_model
    assert f"widths {min(widths)} to {max(widths)}" in (found["searched"] if found else str(why))
