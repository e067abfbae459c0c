"""Whole studies with shares of the text in a made-up world: the time is kept, and a stopped study goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparsedial.runs.clock import Clock
from sparsedial.sweep.budgets import REPORT_SECONDS
from sparsedial.sweep.crossing import KeptText
from sparsedial.sweep.driver import conduct
from sparsedial.sweep.expect import OVERRUN_SHARE, dry_run, whole_seconds
from sparsedial.sweep.judge import LEAST_SEEDS
from tests.sweep.shares import SHARES, crossing, share_of
from tests.sweep.simulation import LAW, WORLD, Bench, Known, asked, bench, layout_with
from tests.sweep.test_simulated_studies import MACHINES


def shared(world=WORLD, limit=600.0, seed=0, selection_flops=0.0, **more) -> Bench:
    """A study that also crosses shares of its text; all shares are trained on by one executor, on one clock."""
    question = asked(time=limit, select="random", keep=SHARES)
    layout = layout_with(question, crossing(selection_flops=selection_flops))
    made = bench(world, question=question, layout=layout, seed=seed, **more)
    texts = tuple(KeptText(share=share_of(kept), open=lambda _: made.executor) for kept in SHARES)
    lab = replace(made.lab, crossing=crossing(selection_flops=selection_flops, texts=texts))
    return replace(made, lab=lab)


@pytest.mark.parametrize("limit", [450.0, 600.0, 2400.0])
@pytest.mark.parametrize("machine", MACHINES)
def test_the_time_is_kept_with_shares(limit, machine):
    for seed in range(2):
        made = shared(MACHINES[machine](limit), limit, seed)
        conduct(made.lab, made.notebook, laws=Known(LAW))
        assert made.executor.seconds + REPORT_SECONDS < (1 + OVERRUN_SHARE) * limit


@pytest.mark.parametrize("limit", [450.0, 600.0, 1200.0])
def test_on_a_machine_as_measured_everything_is_trained(limit):
    made = shared(replace(WORLD, time_noise=0.03), limit)
    findings = conduct(made.lab, made.notebook, laws=Known(LAW))
    study = made.notebook.study
    assert study.verdict_seeds.seconds >= LEAST_SEEDS
    assert study.kept_runs.budgets_flops == (made.lab.layout.budgets[0], made.lab.layout.budgets[-1])
    assert len(findings.kept.points) == 2 * 2 * len(SHARES)
    assert [phase.name for phase in study.phases][-2:] == ["verdict", "kept shares"]
    labels = [label for label in made.executor.labels if "of the text" in label]
    assert len(labels) == 3 * 2 * 2 * 2
    assert any(label.endswith("seed 3, 0.25 of the text") for label in labels)
    full = sum(label.endswith("the full text") for label in made.executor.labels)
    assert full == 3 * 2  # those of the largest budget are the verdict's


def test_shares_take_their_time_from_the_grid():
    plain, with_shares = bench(question=asked(time=600.0)).lab.layout, shared().lab.layout
    assert with_shares.predicted_seconds.kept_shares > 30
    assert with_shares.flops < plain.flops
    assert plain.predicted_seconds.kept_shares == 0


def test_what_pays_for_a_selection_is_planned_and_trained():
    made = shared(limit=2400.0, selection_flops=1e10)
    findings = conduct(made.lab, made.notebook, laws=Known(LAW))
    assert made.notebook.study.kept_runs.at_equal_total
    assert len(findings.kept.equal_total.points) == 2 * (len(SHARES) - 1)
    assert made.executor.seconds + REPORT_SECONDS < (1 + OVERRUN_SHARE) * 2400.0


def test_a_slow_machine_leaves_out_shares_before_the_verdict():
    found = set()
    for slowness in (1.0, 1.3, 1.5, 1.8, 2.0):
        made = shared(replace(WORLD, slowness=lambda seconds, slowness=slowness: slowness))
        findings = conduct(made.lab, made.notebook, laws=Known(LAW))
        kept = made.notebook.study.kept_runs
        found.add(len(kept.budgets_flops))
        assert findings.kept.budgets_flops == kept.budgets_flops
        assert not kept.budgets_flops or made.notebook.study.verdict_seeds.flops >= LEAST_SEEDS
    assert {0, 2} <= found


def test_a_study_stopped_among_its_shares_goes_on_and_finds_the_same():
    made = shared()
    whole = conduct(made.lab, made.notebook, laws=Known(LAW))

    class Stop(Exception):
        pass

    class Stopping:
        """Stops after some runs on shares."""

        def __init__(self) -> None:
            self.left = 7

        def moved(self, event) -> None:
            """A run moved."""

        def ended(self, task, run) -> None:
            """A run ended."""
            self.left -= "of the text" in task.label
            if self.left == 0:
                raise Stop

    again = shared()
    with pytest.raises(Stop):
        conduct(replace(again.lab, listener=Stopping()), again.notebook, laws=Known(LAW))
    done = len(again.executor.labels)
    assert again.notebook.study.kept_runs is not None
    late = replace(again.lab, clock=Clock(600.0, 599.0, now=again.executor.now))  # what was fixed does not depend on it
    found = conduct(late, again.notebook, laws=Known(LAW))
    assert found.kept == whole.kept
    assert len(again.executor.labels) - done <= len(made.executor.labels) - done + 2


def test_a_dry_run_says_runs_and_seconds():
    lab = shared().lab
    low, high = whole_seconds(lab, 600.0, 5, 20.0)
    cost = dry_run(lab, low, high)
    assert cost.kept_runs == 3 * 2 * 2 * len(SHARES)
    assert 0 < cost.kept_seconds == lab.layout.predicted_seconds.kept_shares < cost.seconds
    assert dry_run(bench().lab, low, high).kept_runs == 0
