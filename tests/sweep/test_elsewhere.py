"""A study is planned with the workers of other machines that are there, and says so where they are fewer later."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparsedial.sweep.budgets import REPORT_SECONDS
from sparsedial.sweep.design import design
from sparsedial.sweep.driver import conduct
from sparsedial.sweep.expect import OVERRUN_SHARE
from sparsedial.sweep.judge import LEAST_SEEDS
from tests.sweep.simulation import LAW, PROFILE, Known, asked, bench, layout_of

LIMIT = 600.0


def laid(elsewhere: int):
    return design(asked(time=LIMIT), 256, lambda *_: PROFILE, lambda: 0.0, elsewhere=lambda: elsewhere)[0]


def studied(planned: int, here: int):
    """A study laid for so many workers of other machines, of which so many are there; and what it said."""
    made = bench(question=asked(time=LIMIT), layout=laid(planned))
    made.executor.workers += here
    lines: list[str] = []
    conduct(replace(made.lab, elsewhere=lambda: here), made.notebook, laws=Known(LAW), say=lines.append)
    return made, [line for line in lines if "workers" in line]


def test_a_grid_is_planned_with_the_workers_that_have_joined():
    assert laid(0) == layout_of(asked(time=LIMIT))
    assert laid(4).budgets[-1] > 1.5 * laid(0).budgets[-1]


def test_what_a_run_adds_to_the_time_is_shared_by_all_workers_that_are_there():
    lab = bench().lab
    cost = lab.run_cost(0.1, 100, 1000)
    assert replace(lab, elsewhere=lambda: 4).shared_seconds(cost) == pytest.approx(lab.shared_seconds(cost) / 3)


def test_workers_that_stay_keep_the_time():
    made, said = studied(8, 8)
    assert said == []
    assert made.executor.seconds + REPORT_SECONDS < (1 + OVERRUN_SHARE) * LIMIT
    assert made.notebook.study.verdict_seeds.flops >= LEAST_SEEDS


def test_fewer_workers_than_a_grid_was_planned_with_are_said_before_it_and_the_verdict_pays():
    made, said = studied(8, 0)
    assert said == [
        "the grid was planned with more than 2 workers: to keep the limit of 10 min 00 s, a verdict gets fewer seeds or"
        " is left out"
    ]
    assert made.executor.seconds + REPORT_SECONDS < (1 + OVERRUN_SHARE) * LIMIT
    assert made.notebook.study.verdict_seeds.seconds < studied(8, 8)[0].notebook.study.verdict_seeds.seconds


def test_workers_that_come_later_make_it_shorter():
    alone, _ = studied(0, 0)
    helped, said = studied(0, 4)
    assert said == []
    assert helped.executor.seconds < 0.8 * alone.executor.seconds
