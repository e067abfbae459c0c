"""What a study concludes from its law, and from its runs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sparsedial.planning.candidates import rungs
from sparsedial.sweep.driver import conduct
from sparsedial.sweep.findings import best_of_study, crossover, plan_at_top, seed_noise
from tests.planning.test_ranking import law_with
from tests.sweep.simulation import Known, asked, bench, true_law, world_of


def test_the_crossover_is_looked_for_among_the_shapes_that_a_plan_by_the_study_considers():
    lab = bench().lab
    found = crossover(lab, law_with(0.05))
    widths = rungs(lab.layout.ladder, lab.layout.experts).d_model
    assert f"widths {min(widths)} to {max(widths)}" in (
        found.crossover.searched if found.crossover else str(found.crossover_reason)
    )


@pytest.mark.parametrize("mu", [0.09, -0.05])
def test_the_plan_of_a_study_is_its_best_model_also_where_the_law_would_choose_another(mu):
    made = bench(world_of(true_law(mu=0.09)), question=asked(time=600.0))
    findings = conduct(made.lab, made.notebook, laws=Known(true_law(mu=mu)))
    plan, best = plan_at_top(made.lab, findings), best_of_study(findings, None)
    assert plan is not None
    assert best is not None
    assert best.shape.experts
    assert (plan.shape, plan.tokens) == (best.shape, best.tokens)
    assert any("the law would choose dense" in line for line in plan.marks) == (mu < 0)


def row(currency: str, experts: int, number: int, loss: float | None, tokens: int = 1000):
    name = f"{experts} {tokens} {number}"
    kind = {"d_model": 32, "experts": experts, "tokens": tokens, "optimizer": "adamw"}
    return SimpleNamespace(hash=name, currency=currency, test_loss=loss, **kind)


def test_seed_noise_is_pooled_by_degrees_of_freedom_and_counts_a_run_once():
    losses = {0: [1.0, 1.2, 1.1, 1.3], 8: [2.0, 2.1]}
    rows = [row("flops", of, number, loss) for of, values in losses.items() for number, loss in enumerate(values)]
    squares = sum(np.var(values, ddof=1) * (len(values) - 1) for values in losses.values())
    again = [row("seconds", 0, 0, 1.0), row("seconds", 0, 1, 1.2)]  # the same runs answer for both
    others = [row("seconds", 8, 0, 9.0, tokens=2000), row("seconds", 8, 7, None)]
    assert seed_noise([*rows, *again, *others]) == pytest.approx(np.sqrt(squares / 4))
    assert seed_noise([row("flops", 0, 0, 1.0)]) is None
