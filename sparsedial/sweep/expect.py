"""The expected duration of a whole study: the phases that its layout plans for, and everything else."""

from __future__ import annotations

from sparsedial.machine.profile import Profile
from sparsedial.records.dry_run import StudyDryRun
from sparsedial.records.token_selection import ReferenceModelCost
from sparsedial.shape.counts import total_parameters
from sparsedial.sweep.budgets import (
    EXTENSION_SHARE,
    PROCESS_BYTES,
    REPORT_SECONDS,
    SCAN_POINTS,
    SELECTION_SEEDS,
    between_phases,
    probing_seconds,
    run_cost,
)
from sparsedial.sweep.lab import Lab
from sparsedial.sweep.layout import Layout, forward_seconds
from sparsedial.sweep.rates import MOST_POINTS
from sparsedial.sweep.scan import scan_seconds

OVERRUN_SHARE = 0.1  # by which the whole command may overrun its time
PHASES = 6  # rates, both parts of the grid, timing trials, a repeated first round, equal FLOPs
CONTESTED = 2 * 2 * 2  # models that may meet before a verdict: two of each family, at equal FLOPs and at equal seconds
PAIR_BESIDE = 2.4  # seconds of a pair at equal FLOPs on a shared machine, over those of the dense run alone


def expected_seconds(
    layout: Layout,
    profile: Profile,
    workers: int,
    seeds: int,
    *,
    evaluation_tokens: int,
    verdict_tokens: int,
) -> tuple[float, float]:
    """Seconds of all phases with `seeds` verdict seeds: the likely value, and the longest.

    The layout's own prediction serves to choose budgets. It leaves out scoring, what lies between phases, the scan
    that separates tokens from size, and additional seeds for which there is time. At the longest all open sides are
    followed, and no family's best measured model is its law's choice, so that more runs choose between them.
    """
    planned = layout.predicted_seconds
    assert planned is not None
    runs = sum(layout.repeats(cell.budget_flops) for cell in layout.cells)
    costs = [run_cost(layout, profile, cell, 0.0) for cell in layout.top_cells if not cell.experts]
    longest = max(costs, key=lambda cost: cost.seconds)
    dense, beside = longest.seconds, profile.host_speedup(workers)
    speedup = profile.speedup(workers, longest.step)
    pair_beside = PAIR_BESIDE / speedup * dense
    seed = layout.rival_step * (2 * dense + pair_beside)  # two runs alone and in turns, and a pair at equal FLOPs
    scored = runs * scoring_seconds(layout, profile, evaluation_tokens) / beside
    scored += seeds * (2 + 2 / beside) * scoring_seconds(layout, profile, verdict_tokens)
    scans = layout.scans * scan_seconds(layout, profile, workers)
    likely = (
        planned.total
        - planned.learning_rates
        + SCAN_POINTS * scans
        + (seeds - layout.seeds) * seed
        + scored
        + between_phases(profile) * (PHASES + seeds)
    )
    choosing = 2 * between_phases(profile) + SELECTION_SEEDS * CONTESTED * layout.scans * dense / speedup
    return likely, likely + (MOST_POINTS - SCAN_POINTS) * scans + EXTENSION_SHARE * planned.grid + choosing


def scoring_seconds(layout: Layout, profile: Profile, tokens: int) -> float:
    """Seconds to score a run of the largest budget on `tokens` tokens."""
    shapes = [layout.shape(cell) for cell in layout.top_cells]
    step = max(profile.step_seconds(shape, layout.batch, layout.ladder.context).value for shape in shapes)
    return forward_seconds(layout, step, tokens)


def whole_seconds(lab: Lab, limit_seconds: float, most_seeds: int, set_up_seconds: float) -> tuple[float, float]:
    """Seconds of the whole command: with the planned seeds, and with all seeds that it may have time for.

    `set_up_seconds` is the time for measuring and planning.
    """
    beside_seconds = set_up_seconds + REPORT_SECONDS
    low, high = (
        expected_seconds(
            lab.layout,
            lab.profile,
            lab.at_once,
            seeds,
            evaluation_tokens=lab.evaluation_tokens,
            verdict_tokens=lab.verdict_tokens,
        )
        for seeds in (lab.layout.seeds, most_seeds)
    )
    longest = (1 + OVERRUN_SHARE) * limit_seconds
    return min(beside_seconds + low[0], limit_seconds), min(beside_seconds + high[1], longest)


def dry_run(lab: Lab, low: float, high: float, reference: ReferenceModelCost | None = None) -> StudyDryRun:
    """What a study would train and cost; `low` and `high` are its seconds, with those of a reference model."""
    layout, profile = lab.layout, lab.profile
    profile.require_power()
    seconds = (low + high) / 2
    shapes = [layout.shape(cell) for cell in layout.cells]
    memory_bytes = max(profile.memory_bytes(shape, layout.batch, lab.context) for shape in shapes)
    return StudyDryRun(
        cells=len(layout.cells),
        largest_total_parameters=max(total_parameters(shape) for shape in shapes),
        budgets_flops=layout.budgets,
        flops=layout.flops + (reference.flops if reference else 0.0),
        seconds=seconds,
        seconds_low=low,
        seconds_high=high,
        probe_seconds=sum(
            layout.repeats(cell.budget_flops) * probing_seconds(layout, profile, cell, lab.probe_tokens)
            for cell in layout.cells
        )
        / profile.host_speedup(lab.workers),
        reference_cost=reference,
        kept_runs=lab.crossing.runs(layout.budgets) if lab.crossing else 0,
        kept_seconds=lab.keep_for_shares_seconds,
        select_seconds=lab.crossing.select_seconds if lab.crossing else 0.0,
        joules=seconds * profile.watts_of(lab.workers),
        joules_source=profile.watts_source,
        memory_bytes=profile.host_speedup(lab.workers) * PROCESS_BYTES + lab.workers * memory_bytes,
        dollars=None,
        dollars_reason="no price was given",
    )
