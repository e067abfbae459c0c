"""The layout: which shapes are trained at which budget, and which bounds exclude a cell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

from sparsedial.errors import UserError
from sparsedial.law.bracket import open_side
from sparsedial.machine.profile import Profile
from sparsedial.records.grid import Cell, LayoutFile
from sparsedial.shape.counts import total_parameters, training_flops_per_token
from sparsedial.shape.ladder import RUNGS, Ladder
from sparsedial.shape.shape import Shape
from sparsedial.units import bare_exponent, count_words, human_cost

LEAST_STEPS, LAW_STEPS = 300, 400  # per cell; with four budgets, which fit a law, more: the seed dominates short runs
START_RUNGS = 3
EXTENSIONS = 3  # most cells that follow an open side, per sparsity and budget
FIRST_WIDTH, FIRST_BUDGET = 20.0, 6e10  # start of the search for the best dense width; from the built-in text
WIDTH_EXPONENT = 0.25  # of the best dense width in the budget; active size grows with the square of the width
OTHER_STEP = 1.3  # of a step by another optimizer, over the grid's: Muon's is 1.02 to 1.7 times AdamW's (LOG.md)
MOST_REPEATS = 3  # of a cell, each with another seed, where cells are cheap
SPARSE_NARROWER = 0.04  # each doubling of experts/top_k starts this share (in log2 width) lower


class Layout(LayoutFile, frozen=True, kw_only=True):
    """The grid that a study fixes before its first cell."""

    @staticmethod
    def of(file: LayoutFile) -> Layout:
        """The layout from a study's file."""
        return Layout(**file)

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step."""
        return self.batch * self.ladder.context

    @property
    def scans(self) -> float:
        """The scans of learning rates of all optimizers, over the time of those of the grid's."""
        return 1 + OTHER_STEP * (len(self.optimizers) - 1)

    @property
    def rival_step(self) -> float:
        """The time of a rival's step that is planned for, over the same by the grid's optimizer."""
        return OTHER_STEP if len(self.optimizers) > 1 else 1.0

    @property
    def least_steps(self) -> int:
        """The fewest optimizer steps of a cell."""
        return LAW_STEPS if len(self.budgets) > 3 else LEAST_STEPS

    def repeats(self, budget_flops: float) -> int:
        """The number of seeds of a cell: most where cells are cheap, fewest at the two largest budgets."""
        if len(self.budgets) < 3:
            return self.cell_seeds
        return max(self.cell_seeds, min(MOST_REPEATS, round((self.budgets[-2] / budget_flops) ** 0.5)))

    @property
    def flops(self) -> float:
        """FLOPs of all runs of the laid cells."""
        return sum(cell.budget_flops * self.repeats(cell.budget_flops) for cell in self.cells)

    def shape(self, cell: Cell) -> Shape:
        """The model of a cell."""
        return _shape(self.ladder, cell.d_model, cell.experts)

    def steps(self, cell: Cell) -> int:
        """Whole optimizer steps that the cell's budget buys."""
        return self._bought(_token_flops(self.ladder, cell.d_model, cell.experts), cell.budget_flops)

    def steps_for(self, shape: Shape, budget_flops: float) -> int:
        """Whole optimizer steps that a budget buys for any shape."""
        return self._bought(training_flops_per_token(shape, self.ladder.context), budget_flops)

    def _bought(self, token_flops: int, budget_flops: float) -> int:
        return int(budget_flops // (token_flops * self.tokens_per_step))

    def tokens(self, cell: Cell) -> int:
        """Training tokens of a cell."""
        return self.steps(cell) * self.tokens_per_step

    def allows(self, cell: Cell) -> bool:
        """Whether a cell is on the ladder, has enough steps, and no more parameters than the bound."""
        return cell.d_model in RUNGS and self.steps(cell) >= self.least_steps and self.fits(cell)

    def fits(self, cell: Cell) -> bool:
        """Whether a cell has no more parameters than the bound."""
        return not self.max_total_parameters or total_parameters(self.shape(cell)) <= self.max_total_parameters

    @property
    def top_cells(self) -> list[Cell]:
        """The laid cells of the largest budget."""
        return [cell for cell in self.cells if cell.budget_flops == self.budgets[-1]]


@cache
def _shape(ladder: Ladder, d_model: int, experts: int) -> Shape:
    """A shape of a ladder: a design asks for each some hundred times."""
    return ladder.shape(d_model, experts)


@cache
def _token_flops(ladder: Ladder, d_model: int, experts: int) -> int:
    return training_flops_per_token(_shape(ladder, d_model, experts), ladder.context)


def first_width(budget_flops: float) -> float:
    """The width that is expected to be best for a dense model."""
    return FIRST_WIDTH * (budget_flops / FIRST_BUDGET) ** WIDTH_EXPONENT


def start_rungs(layout: Layout, experts: int, budget_flops: float) -> list[int]:
    """Three neighbouring allowed rungs around the expected best width; fewer where fewer are allowed."""
    narrower = SPARSE_NARROWER * math.log2(experts / layout.ladder.top_k) if experts else 0.0
    width = first_width(budget_flops) * 2**-narrower
    allowed = [rung for rung in RUNGS if layout.allows(Cell(d_model=rung, experts=experts, budget_flops=budget_flops))]
    if len(allowed) < START_RUNGS:
        return allowed
    centre = min(range(len(allowed)), key=lambda index: abs(math.log(allowed[index] / width)))
    first = min(max(centre - 1, 0), len(allowed) - START_RUNGS)
    return allowed[first : first + START_RUNGS]


def lay(layout: Layout) -> tuple[Cell, ...] | None:
    """The cells of a layout before any open side is followed; None where a budget allows fewer than three sizes."""
    cells: list[Cell] = []
    for budget in layout.budgets:
        for experts in layout.experts:
            rungs = start_rungs(layout, experts, budget)
            if len(rungs) < START_RUNGS:
                return None
            cells += [Cell(d_model=rung, experts=experts, budget_flops=budget) for rung in rungs]
    return tuple(cells)


def nearby_shapes(layout: Layout) -> list[Shape]:
    """The models of the cells, and those of the next rungs, to which an open side may lead."""
    rungs, found = sorted(RUNGS), dict[Shape, None]()
    for cell in layout.cells:
        at = rungs.index(cell.d_model)
        for rung in rungs[max(0, at - 1) : at + 2]:
            near = Cell(d_model=rung, experts=cell.experts, budget_flops=cell.budget_flops)
            if layout.allows(near):
                found[layout.shape(near)] = None
    return list(found)


def too_small(layout: Layout) -> UserError:
    """The error for the first budget that allows fewer than three sizes of a sparsity, with their number."""
    lines = (
        (budget, len(start_rungs(layout, experts, budget))) for budget in layout.budgets for experts in layout.experts
    )
    budget, sizes = next((budget, sizes) for budget, sizes in lines if sizes < START_RUNGS)
    allowed = f"only {count_words(sizes, 'size')}" if sizes else "no size"
    least = least_budget(layout)
    enough = "allow more parameters" if least is None else f"give at least {bare_exponent(f'{least:.2g}')}"
    return UserError(
        f"{human_cost('flops', budget)} allow {allowed} with {layout.least_steps} steps each of"
        f" {layout.tokens_per_step} tokens",
        hint=f"{enough}, or a shorter <context>",
        field="budgets" if least is not None else "max_total_parameters",
    )


def least_budget(layout: Layout) -> float | None:
    """The least FLOPs, rounded up to two digits, that buy three sizes of each sparsity; None where no FLOPs do."""
    dearest = 0.0
    for experts in layout.experts:
        cells = (Cell(d_model=rung, experts=experts, budget_flops=0.0) for rung in RUNGS)
        costs = sorted(_token_flops(layout.ladder, cell.d_model, experts) for cell in cells if layout.fits(cell))
        if len(costs) < START_RUNGS:
            return None
        dearest = max(dearest, layout.least_steps * layout.tokens_per_step * costs[START_RUNGS - 1])
    digit = 10.0 ** (math.floor(math.log10(dearest)) - 1)
    return math.ceil(dearest / digit) * digit


def next_cell(layout: Layout, experts: int, budget_flops: float, losses: Mapping[int, float]) -> Cell | None:
    """The next cell on the open side of one sparsity at one budget; None where no side is open or no cell is allowed.

    `losses` maps the widths that ended to their losses.
    """
    side = open_side(losses) if losses else None
    if side is None or len(losses) >= START_RUNGS + EXTENSIONS:
        return None
    rungs = sorted(RUNGS)
    index = rungs.index(min(losses)) - 1 if side == "smaller" else rungs.index(max(losses)) + 1
    if not 0 <= index < len(rungs):
        return None
    cell = Cell(d_model=rungs[index], experts=experts, budget_flops=budget_flops)
    return cell if layout.allows(cell) else None


def cell_seconds(layout: Layout, profile: Profile, cell: Cell) -> float:
    """Predicted training seconds of one run of a cell, alone on the machine."""
    return profile.seconds(layout.shape(cell), layout.tokens(cell), layout.batch, layout.ladder.context).value


def forward_seconds(layout: Layout, step_seconds: float, tokens: int) -> float:
    """Seconds of a forward pass over `tokens` tokens: a third of a training step."""
    return tokens / layout.tokens_per_step * step_seconds / 3


def scan_corners(layout: Layout) -> tuple[Cell, ...]:
    """Where learning rates are scanned: the smallest and the largest size, dense and sparsest, at the lowest budget."""
    lowest = layout.budgets[0]
    corners: list[Cell] = []
    for experts in dict.fromkeys((0, max(layout.experts))):
        sizes = [cell.d_model for cell in layout.cells if cell.experts == experts and cell.budget_flops == lowest]
        corners += [
            Cell(d_model=rung, experts=experts, budget_flops=lowest) for rung in dict.fromkeys((min(sizes), max(sizes)))
        ]
    return tuple(corners)
