"""The picture of both sparsities: test loss by share of the text, and the difference between sparse and dense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparsedial.records.kept import KeptPoint, SparseMinusDense, StudySelection
from sparsedial.records.quantities import Family
from sparsedial.records.study import Study
from sparsedial.showing.drawing import DENSE, INK, MUTED, canvas, end_labels, loss_axis, ring, sparsity_colours
from sparsedial.showing.rows import experts_tried
from sparsedial.showing.words import power_of_ten
from sparsedial.units import human_percent

FAMILIES: tuple[Family, Family] = ("dense", "sparse")
ASIDE = {"dense": -0.07, "sparse": 0.07}  # so that intervals do not hide each other


def kept_shares(study: Study) -> Figure | None:
    """Test loss of both models by the share of the text that stays, and sparse minus dense at the largest budget."""
    found = study.selection
    if found is None or all(point.loss is None for point in found.points):
        return None
    colours = sparsity_colours(experts_tried(study))
    budgets = found.budgets_flops
    figure, plots = canvas(
        _finding(found),
        "Test loss of the best dense and the best sparse model, in nats per token, by the share of the training text"
        f" that stays; equal training FLOPs in each plot. Mean and {human_percent(found.confidence)} interval over"
        f" {found.seeds} seeds; a ring marks the lowest. The last plot compares the models"
        " of the larger budget seed by seed; grey is undecided",
        plot_inches=2.7,
        columns=len(budgets) + 1,
        wspace=0.62,
        right=0.9,
        headed=1,
    )
    for axes, budget in zip(plots, budgets, strict=False):
        points = [point for point in found.points if point.budget_flops == budget]
        _losses(axes, points, colours)
        axes.set_title(f"loss at {power_of_ten(budget)} FLOPs", color=INK)
    gaps = [gap for gap in found.sparse_minus_dense if gap.budget_flops == budgets[-1]]
    _difference(plots[-1], gaps, colours[max(colours)])
    plots[-1].set_title("sparse minus dense", color=INK)
    return figure


def _finding(found: StudySelection) -> str:
    at = f"At {power_of_ten(found.budgets_flops[-1])} FLOPs"
    top = [gap.moves for gap in found.sparse_minus_dense if gap.budget_flops == found.budgets_flops[-1]]
    moved = {moves for moves in top if moves not in (None, "undecided")}
    if found.undecided and not moved:
        both = (
            "which share of the text and which model are best together, and whether less text moves the best sparsity"
        )
        return f"{at} it is undecided {both}"
    if found.undecided or found.best is None:
        best = "which share of the text and which model are best together is undecided"
    else:
        text = "the full text" if found.best.kept == 1 else f"{human_percent(found.best.kept)} of the text"
        best = f"the {found.best.family} model on {text} is best"
    if not moved:
        return f"{at} {best}; whether less text moves the best sparsity is undecided"
    return f"{at} {best}; less text moves the best sparsity {' or '.join(_way(way) for way in sorted(moved))}"


def _way(moves: str) -> str:
    return moves.replace("_", " ")


def _losses(axes: Axes, points: Sequence[KeptPoint], colours: Mapping[int, str]) -> None:
    shares = list(dict.fromkeys(point.kept for point in points))
    labels: list[tuple[float, float, str, str]] = []
    for family in FAMILIES:
        known = [(point, point.loss) for point in points if point.family == family and point.loss is not None]
        if not known:
            continue
        experts = known[0][0].shape.experts
        places = [shares.index(point.kept) + ASIDE[family] for point, _ in known]
        means = [loss.mean for _, loss in known]
        axes.plot(places, means, "o-", color=colours[experts], markersize=5)
        for place, (_, loss) in zip(places, known, strict=True):
            if loss.low is not None and loss.high is not None:
                axes.plot([place, place], [loss.low, loss.high], color=colours[experts], linewidth=4, alpha=0.3)
        labels.append((places[-1], means[-1], family, colours[experts]))
        best = min((one for one in points if one.loss is not None), key=lambda one: one.loss.mean if one.loss else 0)
        if best.family == family and best.loss is not None:
            ring(axes, shares.index(best.kept) + ASIDE[family], best.loss.mean, colours[experts], size=12)
    _by_share(axes, shares)
    end_labels(axes, labels)


def _difference(axes: Axes, gaps: Sequence[SparseMinusDense], sparse: str) -> None:
    axes.axhline(0, color=INK, linewidth=1)
    for place, gap in enumerate(gaps):
        difference = gap.difference
        if difference is None:
            continue
        low, high = difference.low, difference.high
        resolved = low is not None and high is not None and not low <= 0 <= high
        colour = MUTED if not resolved else sparse if difference.mean < 0 else DENSE
        axes.plot(place, difference.mean, "o", color=colour, markersize=6)
        if low is not None and high is not None:
            axes.plot([place, place], [low, high], color=colour, linewidth=4, alpha=0.35)
    _by_share(axes, [gap.kept for gap in gaps])
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    for height, text, colour, side in (
        (1, "dense is better ↑", DENSE, "top"),
        (0, "sparse is better ↓", sparse, "bottom"),
    ):
        axes.text(
            1.04, height, text.replace(" is", "\nis"), transform=axes.transAxes, color=colour, va=side, fontsize=9
        )


def _by_share(axes: Axes, shares: Sequence[float]) -> None:
    axes.set_xticks(range(len(shares)), ["all" if kept == 1 else human_percent(kept) for kept in shares])
    axes.set_xlim(-0.35, len(shares) - 0.65)
    axes.set_xlabel("share of the text")
    loss_axis(axes, None)
