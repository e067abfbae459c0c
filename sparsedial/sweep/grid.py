"""The grid: which shapes are trained at which budget, sized so that the whole study fits its time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from sparsedial.errors import UserError
from sparsedial.machine.profile import Profile
from sparsedial.shape.counts import total_parameters, training_flops_per_token
from sparsedial.shape.ladder import RUNGS, Ladder
from sparsedial.shape.shape import Shape
from sparsedial.units import human_seconds, spelled_at_least

LEAST_STEPS, LAW_STEPS = 300, 400  # of a cell; where four budgets carry a law: of short runs the seed decides
START_RUNGS = 3
EXTENSIONS = 3  # per sparsity and budget: how often an open side is followed
EXTENSION_SHARE = 0.15  # of the laid cells' time, set aside for following open sides
BESIDE_FACTOR = 1.05  # a cell beside another runs about this much longer than alone
FIRST_WIDTH, FIRST_BUDGET = 20.0, 6e10  # where the search for the best dense width starts: built-in text, this ladder
WIDTH_EXPONENT = 0.25  # width of the best dense model against budget; active size goes with its square
TOP_BUDGETS = tuple(10 ** (exponent / 10) for exponent in range(96, 180))  # FLOPs that a study's largest may have
MOST_REPEATS = 3  # of a cell, with seeds of its own, where cells are cheap
SPARSE_NARROWER = 0.04  # each doubling of experts/top_k starts this share (in log2 width) lower


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One point of the grid: a rung of the ladder, a number of experts, a budget."""

    d_model: int
    experts: int
    budget_flops: float


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a study fixes before its first cell."""

    ladder: Ladder
    batch: int  # sequences per step, the same everywhere: a batch that grew with the budget would bend the law
    budgets: tuple[float, ...]
    experts: tuple[int, ...]  # 0 is dense
    seeds: int  # of the verdict
    max_total_parameters: float | None
    cell_seeds: int  # of the cells of the two largest budgets; cheaper cells may have more
    cells: tuple[Cell, ...]  # before any open side is followed
    predicted_seconds: dict[str, float]  # by phase, on the study's workers

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step."""
        return self.batch * self.ladder.context

    @property
    def least_steps(self) -> int:
        """Optimizer steps below which a cell is not trained."""
        return LAW_STEPS if len(self.budgets) > 3 else LEAST_STEPS

    def repeats(self, budget_flops: float) -> int:
        """How many seeds a cell is trained with: most where it is cheap, fewest at the two largest budgets."""
        if len(self.budgets) < 3:
            return self.cell_seeds
        return max(self.cell_seeds, min(MOST_REPEATS, round((self.budgets[-2] / budget_flops) ** 0.5)))

    @property
    def flops(self) -> float:
        """FLOPs of all runs of the laid cells."""
        return sum(cell.budget_flops * self.repeats(cell.budget_flops) for cell in self.cells)

    def shape(self, cell: Cell) -> Shape:
        """The model of a cell."""
        return self.ladder.shape(cell.d_model, cell.experts)

    def steps(self, cell: Cell) -> int:
        """Whole optimizer steps that the cell's budget buys."""
        return self.steps_for(self.shape(cell), cell.budget_flops)

    def steps_for(self, shape: Shape, budget_flops: float) -> int:
        """Whole optimizer steps of any shape that a budget buys."""
        step_flops = training_flops_per_token(shape, self.ladder.context) * self.tokens_per_step
        return int(budget_flops // step_flops)

    def tokens(self, cell: Cell) -> int:
        """Tokens that a cell learns from."""
        return self.steps(cell) * self.tokens_per_step

    def allowed(self, cell: Cell) -> str | None:
        """None, or the bound that keeps a cell out: the steps, the ladder's ends, or the parameters."""
        if cell.d_model not in RUNGS:
            return "rungs"
        if self.steps(cell) < self.least_steps:
            return "steps"
        if self.max_total_parameters and total_parameters(self.shape(cell)) > self.max_total_parameters:
            return "max_total_parameters"
        return None


def start_rungs(layout: Layout, experts: int, budget_flops: float) -> list[int]:
    """Three neighbouring rungs around the expected best width, all of them allowed.

    Raises: UserError where the budget allows no three.
    """
    thinner = SPARSE_NARROWER * math.log2(experts / layout.ladder.top_k) if experts else 0.0
    width = FIRST_WIDTH * (budget_flops / FIRST_BUDGET) ** WIDTH_EXPONENT * 2**-thinner
    allowed = [
        rung for rung in RUNGS if layout.allowed(Cell(d_model=rung, experts=experts, budget_flops=budget_flops)) is None
    ]
    if len(allowed) < START_RUNGS:
        raise UserError(
            f"study: {budget_flops:.3g} FLOPs allow only {len(allowed)} sizes with {layout.least_steps} steps"
            f" each of {layout.tokens_per_step} tokens",
            hint="give more time, larger budgets, or a shorter --context",
        )
    centre = min(range(len(allowed)), key=lambda place: abs(math.log(allowed[place] / width)))
    first = min(max(centre - 1, 0), len(allowed) - START_RUNGS)
    return allowed[first : first + START_RUNGS]


def open_side(losses: Mapping[int, float]) -> str | None:
    """The side on which the best width is not bracketed: "smaller", "larger", or None.

    `losses` maps d_model to a finite loss.
    """
    best = min(losses, key=lambda rung: losses[rung])
    if best == min(losses):
        return "smaller"
    return "larger" if best == max(losses) else None


def next_cell(layout: Layout, experts: int, budget_flops: float, losses: Mapping[int, float]) -> Cell | None:
    """The cell that follows the open side of one sparsity at one budget, or None where nothing is open or allowed."""
    side = open_side(losses) if losses else None
    if side is None or len(losses) >= START_RUNGS + EXTENSIONS:
        return None
    rungs = sorted(RUNGS)
    place = rungs.index(min(losses)) - 1 if side == "smaller" else rungs.index(max(losses)) + 1
    if not 0 <= place < len(rungs):
        return None
    cell = Cell(d_model=rungs[place], experts=experts, budget_flops=budget_flops)
    return cell if layout.allowed(cell) is None else None


def lay(layout: Layout) -> tuple[Cell, ...]:
    """The cells of a layout before any open side is followed."""
    return tuple(
        Cell(d_model=rung, experts=experts, budget_flops=budget)
        for budget in layout.budgets
        for experts in layout.experts
        for rung in start_rungs(layout, experts, budget)
    )


def cell_seconds(layout: Layout, profile: Profile, cell: Cell) -> float:
    """Seconds that one run of a cell is predicted to train, alone."""
    return profile.seconds(layout.shape(cell), layout.tokens(cell), layout.batch, layout.ladder.context).value


def predict_phases(layout: Layout, profile: Profile, workers: int, scan_points: int) -> dict[str, float]:
    """Seconds of each phase on the study's workers, from the profile."""
    per_run = 0.15  # start, evaluation and record of one run, beside its training
    beside = BESIDE_FACTOR if workers > 1 else 1.0

    def spread(runs: list[tuple[float, int]]) -> float:
        """Of runs that are done so many times each."""
        if not runs:
            return 0.0
        longest = max(seconds for seconds, _ in runs)
        return beside * max(sum(seconds * times for seconds, times in runs) / workers + longest / 2, longest)

    corners = scan_corners(layout)
    scans = [(cell_seconds(layout, profile, cell) + per_run, scan_points) for cell in corners]
    below, top = (
        [
            (cell_seconds(layout, profile, cell) + per_run, layout.repeats(cell.budget_flops))
            for cell in layout.cells
            if (cell.budget_flops == layout.budgets[-1]) == largest
        ]
        for largest in (False, True)
    )
    dense, sparse = (
        median(cell_seconds(layout, profile, cell) for cell in top_cells(layout) if (cell.experts > 0) == is_sparse)
        for is_sparse in (False, True)
    )
    timed = (2 * layout.seeds + 3) * dense + 20.0  # all cost what the dense one costs; one round twice, a timing trial
    equal_flops = [(sparse, layout.seeds)]  # the dense runs are most often the timed ones
    return {
        "learning_rates": spread(scans),
        "grid": (1 + EXTENSION_SHARE) * (spread(below) + spread(top)),
        "verdict": timed + spread(equal_flops),
    }


def top_cells(layout: Layout) -> list[Cell]:
    """The laid cells of the largest budget."""
    return [cell for cell in layout.cells if cell.budget_flops == layout.budgets[-1]]


def scan_corners(layout: Layout) -> tuple[Cell, ...]:
    """Where learning rates are scanned: the smallest and the largest size, dense and sparsest, at the lowest budget."""
    lowest = layout.budgets[0]
    corners = []
    for experts in dict.fromkeys((0, max(layout.experts))):
        sizes = [cell.d_model for cell in layout.cells if cell.experts == experts and cell.budget_flops == lowest]
        corners += [
            Cell(d_model=rung, experts=experts, budget_flops=lowest) for rung in dict.fromkeys((min(sizes), max(sizes)))
        ]
    return tuple(corners)


def fit_to_time(
    drafts: Sequence[Layout], profile: Profile, seconds: float, workers: int, scan_points: int, beside_seconds: float
) -> Layout:
    """The largest budgets, in the ratios of the first draft that fits, whose study is predicted to take `seconds`.

    `beside_seconds` is what the whole takes beside that: it only enters the least time that an error names.

    Raises: UserError naming the least time where no draft fits.
    """
    least = math.inf
    for draft in drafts:
        layout, wanted = _largest(draft, profile, seconds, workers, scan_points)
        if layout is not None:
            return layout
        least = min(least, wanted)
    if math.isinf(least):
        raise _no_layout(drafts[0])
    raise UserError(
        f"study: {human_seconds(seconds)} for training are too short for a grid on this machine",
        hint=f"the least is --time {spelled_at_least(least + beside_seconds)} here",
    )


def smallest(drafts: Sequence[Layout]) -> Layout:
    """The layout of the fewest FLOPs in any draft's ratios, however long it takes: it needs no profile.

    Raises: UserError where no budget lays a grid.
    """
    first = [next((got for top in TOP_BUDGETS if (got := _laid(draft, top)) is not None), None) for draft in drafts]
    laid = [layout for layout in first if layout is not None]
    if not laid:
        raise _no_layout(drafts[0])
    return min(laid, key=lambda layout: layout.flops)


def _no_layout(draft: Layout) -> UserError:
    return UserError(
        f"study: no budget up to {TOP_BUDGETS[-1]:.0e} FLOPs lays three sizes with {max(draft.experts)} experts and"
        f" {draft.least_steps} steps each at a context of {draft.ladder.context}",
        hint="give a shorter --context, fewer experts, or a larger --max-total-parameters",
    )


def _largest(
    draft: Layout, profile: Profile, seconds: float, workers: int, scan_points: int
) -> tuple[Layout | None, float]:
    """The largest layout in the draft's ratios that fits, or None, and the seconds of the smallest."""
    least, best = math.inf, None
    for top_budget in TOP_BUDGETS:
        layout = _laid(draft, top_budget)
        if layout is None:
            continue
        layout = replace(layout, predicted_seconds=predict_phases(layout, profile, workers, scan_points))
        wanted = sum(layout.predicted_seconds.values())
        least = min(least, wanted)
        if wanted > seconds:
            if best is not None:
                break
            continue
        best = layout
    return best, least


def _laid(draft: Layout, top_budget: float) -> Layout | None:
    """A draft laid with its budgets scaled, or None where they are too small.

    The batch starts at the draft's and halves until the lowest budget allows its three sizes.
    """
    scale = top_budget / draft.budgets[-1]
    budgets = tuple(round_budget(scale * budget) for budget in draft.budgets)
    for batch in batches(draft.batch):
        layout = replace(draft, batch=batch, budgets=budgets)
        try:
            layout = replace(layout, cells=lay(layout))
        except UserError:
            continue
        if all(_expected_inside(layout, experts) for experts in layout.experts):
            return layout
    return None


def batches(most: int) -> list[int]:
    """Batch sizes to try, largest first, in sequences."""
    return [batch for batch in (128, 64, 32, 16, 8, 4) if batch <= most]


def round_budget(flops: float) -> float:
    """Two significant digits: a budget that reads well and names the same study again."""
    return float(f"{flops:.1e}")


def _expected_inside(layout: Layout, experts: int) -> bool:
    """Whether the lowest budget allows a rung above the width that is expected to be best there."""
    budget = layout.budgets[0]
    rungs = start_rungs(layout, experts, budget)
    width = FIRST_WIDTH * (budget / FIRST_BUDGET) ** WIDTH_EXPONENT
    return rungs[-1] >= width
