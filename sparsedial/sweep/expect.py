"""How long a whole study takes: what its layout plans for, and what comes beside that."""

from __future__ import annotations

from sparsedial.machine.profile import Profile
from sparsedial.sweep.grid import EXTENSION_SHARE, Layout, cell_seconds, top_cells
from sparsedial.sweep.phases import scan_seconds
from sparsedial.sweep.rates import MOST_POINTS

START_SECONDS = 2.5  # of workers, each time: they import PyTorch
STARTS = 6  # of workers: rates, both parts of the grid, timing trials, a first round done again, equal FLOPs
PAIR_BESIDE = (
    2.4  # seconds of a pair at equal FLOPs beside others, in runs of the dense one alone: the sparse is slower
)


def expected_seconds(
    layout: Layout,
    profile: Profile,
    workers: int,
    seeds: int,
    *,
    scan_points: int,
    evaluation_tokens: int,
    test_tokens: int,
) -> tuple[float, float]:
    """Seconds of all phases with so many seeds of the verdict: as is likely, and with open sides followed to the end.

    The layout's own prediction is for a budget to be chosen by. It leaves out scoring, the start of workers, the scan
    that parts tokens from size, and seeds that time is found for.
    """
    planned = layout.predicted_seconds
    runs = sum(layout.repeats(cell.budget_flops) for cell in layout.cells)
    dense = max(cell_seconds(layout, profile, cell) for cell in top_cells(layout) if not cell.experts)
    seed = (2 + PAIR_BESIDE / workers) * dense  # and two alone and in turn
    scored = runs * scoring_seconds(layout, profile, evaluation_tokens) / workers
    scored += seeds * (2 + 2 / workers) * scoring_seconds(layout, profile, evaluation_tokens + test_tokens)
    scans = scan_seconds(layout, profile) / workers
    likely = (
        sum(planned.values())
        - planned["learning_rates"]
        + scan_points * scans
        + (seeds - layout.seeds) * seed
        + scored
        + START_SECONDS * (STARTS + seeds)
    )
    return likely, likely + (MOST_POINTS - scan_points) * scans + EXTENSION_SHARE * planned["grid"]


def scoring_seconds(layout: Layout, profile: Profile, tokens: int) -> float:
    """Seconds to score a run of the largest budget on some text: a forward pass is a third of a training step."""
    shapes = [layout.shape(cell) for cell in top_cells(layout)]
    step = max(profile.step_seconds(shape, layout.batch, layout.ladder.context).value for shape in shapes)
    return tokens / layout.tokens_per_step * step / 3
