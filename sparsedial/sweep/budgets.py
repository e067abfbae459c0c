"""Budgets that fit a study into its time: each phase is predicted, and the largest budgets that fit are used."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.machine.profile import Profile
from sparsedial.records.grid import Cell, PhaseSeconds
from sparsedial.records.quantities import family_of
from sparsedial.sweep.at_once import AtOnce, RunCost
from sparsedial.sweep.crossing import FAMILIES, Crossing
from sparsedial.sweep.layout import (
    Layout,
    cell_seconds,
    first_width,
    forward_seconds,
    lay,
    scan_corners,
    start_rungs,
)
from sparsedial.units import human_seconds, spelled_at_least

EXTENSION_SHARE = 0.15  # of the laid cells' time, reserved for following open sides
BESIDE_FACTOR = 1.05  # a cell that shares the machine takes about this much longer
SELECTION_SEEDS = 2  # of each nominee; a third changes nothing (LOG.md, 2026-11-28), one alone may be a bad seed
SCAN_POINTS = 4  # learning rates of a scan, on average
PHASE_SECONDS = 2.5  # between two phases: the law is fitted, and before the first one the workers start
RUN_SECONDS = 0.15  # start, evaluation and record of a run, beside its training
PROBE_SECONDS = 0.4  # of a run that is scored on probes, beside what the model reads: the intervals; measured
TRIALS_SECONDS = 20.0  # of all timing trials
REPORT_SECONDS = 15.0
BEYOND = 2.0  # times the time that there is: no larger budget is tried then; a larger batch may save less than this
PROCESS_BYTES = 0.4e9  # of a worker, without the model that it trains
TOP_BUDGETS = tuple(10 ** (exponent / 10) for exponent in range(96, 180))  # FLOPs of the largest budget that are tried


def probing_seconds(layout: Layout, profile: Profile, cell: Cell, probe_tokens: int) -> float:
    """Predicted seconds to score one run of a cell on probes of so many tokens; 0 without probes."""
    if not probe_tokens:
        return 0.0
    step = profile.step_seconds(layout.shape(cell), layout.batch, layout.ladder.context).value
    return PROBE_SECONDS + forward_seconds(layout, float(step), probe_tokens)


def between_phases(profile: Profile) -> float:
    """Seconds before each phase in which nothing is trained; a GPU's runs are all in this process."""
    return PHASE_SECONDS if profile.device == "cpu" else 0.0


def beside_seconds(profile: Profile) -> float:
    """Predicted seconds of any run beside its training and its scores on probes."""
    return RUN_SECONDS + profile.start_seconds


def run_cost(layout: Layout, profile: Profile, cell: Cell, beside: float) -> RunCost:
    """Predicted seconds of one run of a cell, alone on the machine, with those of what it does beside training."""
    training = cell_seconds(layout, profile, cell)
    return RunCost(step=training / layout.steps(cell), training=training, beside=beside)


def grid_cost(layout: Layout, profile: Profile, cell: Cell, probe_tokens: int) -> RunCost:
    """The same of a run of the grid: its training, and its score on probes."""
    return run_cost(layout, profile, cell, probing_seconds(layout, profile, cell, probe_tokens))


def _grid_run(layout: Layout, profile: Profile, cell: Cell, probe_tokens: int) -> RunCost:
    """The same with what any run takes beside."""
    beside = probing_seconds(layout, profile, cell, probe_tokens) + beside_seconds(profile)
    return run_cost(layout, profile, cell, beside)


def crossing_seconds(layout: Layout, profile: Profile, workers: int, crossing: Crossing | None) -> float:
    """Predicted seconds of the runs on kept shares, and of their scores; 0 without a selection.

    Their models are not known yet: cells of median cost stand for them.
    """
    if crossing is None:
        return 0.0
    lowest, top = crossing.budgets(layout.budgets)
    times = {lowest: float(crossing.shares), top: (crossing.shares - 1) * (1 + crossing.left(top))}
    costs = {
        (budget, family): [
            _scored_cost(layout, profile, cell, crossing.scored_tokens)
            for cell in layout.cells
            if cell.budget_flops == budget and family_of(cell.experts) == family
        ]
        for budget in times
        for family in FAMILIES
    }
    runs = sum(
        crossing.seeds * times[budget] * median(cost.shared(profile, workers) for cost in some)
        for (budget, _), some in costs.items()
    )
    longest = max(median(cost.seconds for cost in some) for some in costs.values())
    texts = crossing.shares + (crossing.shares - 1) * (crossing.left(top) > 0)  # each has a start and an end of its own
    beside = BESIDE_FACTOR if workers > 1 else 1.0
    return beside * (runs + texts * longest / 2) + texts * between_phases(profile)


def _scored_cost(layout: Layout, profile: Profile, cell: Cell, tokens: int) -> RunCost:
    step = float(profile.step_seconds(layout.shape(cell), layout.batch, layout.ladder.context).value)
    return run_cost(layout, profile, cell, forward_seconds(layout, step, tokens) + beside_seconds(profile))


def predict_phases(
    layout: Layout, profile: Profile, workers: int, probe_tokens: int = 0, crossing: Crossing | None = None
) -> PhaseSeconds:
    """Seconds of each phase on the study's workers, predicted by the profile.

    Each run of the grid is scored on probes of `probe_tokens` tokens.
    """
    beside = BESIDE_FACTOR if workers > 1 else 1.0

    def spread(runs: list[tuple[RunCost, int]]) -> float:
        """Seconds of runs on the workers; each run is given with its number of repeats."""
        if not runs:
            return 0.0
        longest = max(cost.seconds for cost, _ in runs)
        return beside * max(sum(times * cost.shared(profile, workers) for cost, times in runs) + longest / 2, longest)

    scans = [(run_cost(layout, profile, cell, beside_seconds(profile)), SCAN_POINTS) for cell in scan_corners(layout)]
    below, top = (
        [
            (_grid_run(layout, profile, cell, probe_tokens), layout.repeats(cell.budget_flops))
            for cell in layout.cells
            if (cell.budget_flops == layout.budgets[-1]) == largest
        ]
        for largest in (False, True)
    )
    dense, sparse = (
        median_cost([run_cost(layout, profile, cell, 0.0) for cell in layout.top_cells if (cell.experts > 0) == kind])
        for kind in (False, True)
    )
    # Every timed run costs what the dense one costs, and one round may run twice.
    timed = layout.rival_step * (2 * layout.seeds + 3) * dense.seconds + TRIALS_SECONDS * len(layout.optimizers)
    equal_flops = layout.rival_step * spread([(sparse, layout.seeds)])  # the dense runs are mostly the timed ones
    if len(layout.optimizers) > 1:  # then all rivals are tried, with one seed or more, in both currencies
        tried = 2 * len(layout.optimizers)
        equal_flops += layout.rival_step * spread([(dense, tried), (sparse, tried)])
    return PhaseSeconds(
        learning_rates=layout.scans * spread(scans),
        grid=(1 + EXTENSION_SHARE) * (spread(below) + spread(top)),
        verdict=timed + equal_flops,
        kept_shares=crossing_seconds(layout, profile, workers, crossing),
    )


def median_cost(costs: Sequence[RunCost]) -> RunCost:
    """The median of each part; steps and training of these costs rise together."""
    return RunCost(**{name: median(getattr(cost, name) for cost in costs) for name in ("step", "training", "beside")})


def fastest(
    layout: Layout, profile: Profile, at_once: AtOnce, probe_tokens: int = 0, crossing: Crossing | None = None
) -> tuple[int, PhaseSeconds]:
    """The number of runs at once with which a layout takes the least time, and its phases' seconds."""
    options = [
        (workers, predict_phases(layout, profile, workers, probe_tokens, crossing))
        for workers in at_once.fitting(layout)
    ]
    return min(options, key=lambda option: option[1].total)


def fit_to_time(
    drafts: Sequence[Layout],
    profile: Profile,
    seconds: float,
    at_once: AtOnce,
    whole_seconds: Callable[[float], float],
    probe_tokens: int = 0,
    crossing: Crossing | None = None,
) -> Layout:
    """The layout with the largest budgets whose study is predicted to fit into `seconds`.

    The ratios of the budgets are those of the first draft that fits. `whole_seconds` gives the time of a command that
    leaves so many seconds to its study: the minimum in the error.

    Raises: UserError with the minimum time where no draft fits.
    """
    least = math.inf
    for draft in drafts:
        layout, wanted = _largest(draft, profile, seconds, at_once, probe_tokens, crossing)
        if layout is not None:
            return layout
        least = min(least, wanted)
    if math.isinf(least):
        raise _no_layout(drafts[0])
    raise UserError(
        f"{human_seconds(seconds)} for training is too short for a grid on this machine",
        hint=f"the minimum here is {spelled_at_least(whole_seconds(least))}",
        field="time",
    )


def smallest(drafts: Sequence[Layout]) -> Layout:
    """The layout with the fewest FLOPs over all drafts. It ignores time, so it needs no profile.

    Raises: UserError where no budget allows a grid.
    """
    first = [next((got for top in TOP_BUDGETS if (got := _laid(draft, top)) is not None), None) for draft in drafts]
    laid = [layout for layout in first if layout is not None]
    if not laid:
        raise _no_layout(drafts[0])
    return min(laid, key=lambda layout: layout.flops)


def _no_layout(draft: Layout) -> UserError:
    return UserError(
        f"no budget up to {TOP_BUDGETS[-1]:.0e} FLOPs allows three sizes with {max(draft.experts)} experts and"
        f" {draft.least_steps} steps each at a context of {draft.ladder.context}",
        hint="give a shorter <context>, fewer experts, or a larger <max_total_parameters>",
    )


def _largest(
    draft: Layout, profile: Profile, seconds: float, at_once: AtOnce, probe_tokens: int, crossing: Crossing | None
) -> tuple[Layout | None, float]:
    """The largest layout with the draft's ratios that fits, or None; and the seconds of the smallest layout."""
    least, best = math.inf, None
    for top_budget in TOP_BUDGETS:
        layout = _laid(draft, top_budget)
        if layout is None:
            continue
        _, predicted = fastest(layout, profile, at_once, probe_tokens, crossing)
        least = min(least, predicted.total)
        if predicted.total <= seconds:
            best = replace(layout, predicted_seconds=predicted)
        elif best is not None and predicted.total > BEYOND * seconds:
            break
    return best, least


def _laid(draft: Layout, top_budget: float) -> Layout | None:
    """The layout of a draft with scaled budgets, or None where they are too small.

    The batch starts at the draft's and halves until the lowest budget allows three sizes.
    """
    scale = top_budget / draft.budgets[-1]
    budgets = tuple(round_budget(scale * budget) for budget in draft.budgets)
    for batch in batches(draft.batch):
        layout = replace(draft, batch=batch, budgets=budgets)
        cells = lay(layout)
        if cells is not None and all(_expected_inside(layout, experts) for experts in layout.experts):
            return replace(layout, cells=cells)
    return None


def batches(most: int) -> list[int]:
    """Batch sizes to try, largest first, in sequences."""
    return [batch for batch in (128, 64, 32, 16, 8, 4) if batch <= most]


def round_budget(flops: float) -> float:
    """A budget with two significant digits: easy to read, and the same in a repeated study."""
    return float(f"{flops:.1e}")


def _expected_inside(layout: Layout, experts: int) -> bool:
    """Whether the lowest budget allows a rung at or above the width that is expected to be best there."""
    budget = layout.budgets[0]
    return start_rungs(layout, experts, budget)[-1] >= first_width(budget)
