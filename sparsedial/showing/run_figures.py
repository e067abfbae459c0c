"""Pictures of the runs: loss against cost, training curves, the load of experts, and learning rates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sparsedial.records.grid import CellRow, Scan, VerdictRow
from sparsedial.records.quantities import Load
from sparsedial.records.study import Study
from sparsedial.showing.drawing import (
    DENSE,
    INK,
    LOSS,
    MUTED,
    PAPER,
    canvas,
    end_labels,
    log_axis,
    loss_axis,
    ring,
    sparsity_colours,
)
from sparsedial.showing.rows import experts_tried, finished
from sparsedial.showing.words import CURRENCIES, cost, listing, metered, power_of_ten
from sparsedial.units import family_name, human_count, human_seconds


def seconds(study: Study) -> Figure | None:
    """Loss against measured seconds."""
    return _against_cost(study, "seconds", "seconds of training")


def joules(study: Study) -> Figure | None:
    """Loss against measured joules; None without a meter, where it would be the picture against seconds, rescaled."""
    return _against_cost(study, "joules", "joules of training") if metered(study.verdict) else None


def _against_cost(study: Study, currency: str, label: str) -> Figure | None:
    """All cells with the lower edge of each family, and the verdict's two models of equal cost."""
    cells = [row for row in finished(study) if row.cost(currency)]
    runs = [
        row
        for row in study.verdict_runs
        if row.currency == currency and row.status == "finished" and row.cost(currency)
    ]
    if not cells:
        return None
    found = study.verdict.of(currency)
    outcome = {"sparse": "sparse is better", "dense": "dense is better", "undecided": "it is undecided"}[found.winner]
    if found.gap is None:
        outcome = "no pair of models was compared"
    budget = found.budget.value
    where = f"At equal {CURRENCIES[currency]}" + (f" ({cost(currency, budget)})" if runs and budget else "")
    beside = "alone on the machine" if all(row.alone for row in cells) else "beside other cells"
    figure, (axes,) = canvas(
        f"{where} {outcome}",
        f"Dots: cells of the grid, trained {beside} (darker blue: more experts); lines: the lower edges of"
        " dense and of sparse cells." + (" Diamonds: the verdict's runs, alone and in turns." if runs else ""),
        plot_inches=3.7,
        right=0.85,
    )
    labels = _dots_and_edges(study, axes, cells, currency)
    colours = sparsity_colours(experts_tried(study))
    for row in runs:
        colour = colours[row.experts]
        axes.plot(
            (row.cost(currency) or 0.0),
            row.bounded_loss,
            "D",
            color=colour,
            markersize=8,
            markeredgecolor=PAPER,
            zorder=5,
        )
    if runs and budget:
        _equal_cost_line(axes, budget)
    axes.set_xscale("log")
    axes.margins(x=0.04)
    loss_axis(axes, LOSS)
    spell = {"seconds": human_seconds, "joules": lambda value: cost("joules", value)}[currency]
    log_axis(axes, label, spell)
    end_labels(axes, labels)
    return figure


def _dots_and_edges(
    study: Study, axes: Axes, cells: Sequence[CellRow], currency: str
) -> list[tuple[float, float, str, str]]:
    """Draw both families. Returns the end of each edge, its name and its colour."""
    colours = sparsity_colours(experts_tried(study))
    labels = []
    for name, colour in (("dense", DENSE), ("sparse", colours[max(colours)])):
        own = [row for row in cells if bool(row.experts) == (name == "sparse")]
        for row in own:
            shade = colours[row.experts]
            axes.plot(
                (row.cost(currency) or 0.0),
                row.bounded_loss,
                "o",
                markersize=4.5,
                color=shade,
                alpha=0.55,
                markeredgewidth=0,
            )
        edge = lower_edge([((row.cost(currency) or 0.0), row.bounded_loss) for row in own])
        if edge:
            axes.plot(*zip(*edge, strict=True), color=colour)
            labels.append((*edge[-1], name, colour))
    return labels


def _equal_cost_line(axes: Axes, budget: float) -> None:
    axes.axvline(budget, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        "equal cost",
        (budget, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-5, -3),
        textcoords="offset points",
        ha="right",
        va="top",
        color=MUTED,
        fontsize=9,
    )


def lower_edge(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of the lower convex hull of (log cost, loss), as far as it falls, cheapest first."""
    edge: list[tuple[float, float]] = []
    for cost_, loss in sorted(points):
        if edge and loss >= edge[-1][1]:
            continue
        while len(edge) > 1 and _slope(edge[-2], (cost_, loss)) <= _slope(edge[-2], edge[-1]):
            edge.pop()
        if edge and edge[-1][0] == cost_:
            edge.pop()
        edge.append((cost_, loss))
    return edge


def _slope(first: tuple[float, float], second: tuple[float, float]) -> float:
    run = math.log(second[0] / first[0])
    return (second[1] - first[1]) / run if run else -math.inf


def training_curves(study: Study) -> Figure | None:
    """Training loss of the verdict's runs against the spent cost, one plot per currency."""
    runs = [row for row in study.verdict_runs if len(row.curve) >= 10 and row.status == "finished"]
    names = [
        name for name in ("flops", "seconds", "joules") if any(row.currency == name and row.cost(name) for row in runs)
    ]
    if not names:
        return None
    figure, plots = canvas(
        _curves_title({name: _ahead(name, [row for row in runs if row.currency == name]) for name in names}),
        "Training loss (smoothed) of the verdict's runs against the spent cost; one thin line per seed",
        plot_inches=3.3,
        columns=len(names),
        right=1.05,
        wspace=0.36,
        headed=1,
    )
    colours = sparsity_colours(experts_tried(study))
    for axes, name in zip(plots, names, strict=True):
        own = [row for row in runs if row.currency == name and row.cost(name)]
        ends: dict[int, list[tuple[float, float]]] = {}
        for row in own:
            ends.setdefault(row.experts, []).append(_draw_curve(axes, row, name, colours[row.experts]))
        axes.set_title(f"equal {CURRENCIES[name]}", color=INK)
        loss_axis(axes, "training loss, nats per token" if name == names[0] else None)
        axes.set_ylim(*_late_range(axes))
        log_axis(
            axes,
            {"flops": "FLOPs spent", "seconds": "seconds spent", "joules": "joules spent"}[name],
            {"flops": power_of_ten}.get(name, lambda value: f"{value:g}"),
        )
        right = max(spent for side in ends.values() for spent, _ in side)  # beyond the end of every line
        middles = {experts: float(np.mean([loss for _, loss in side])) for experts, side in ends.items()}
        end_labels(axes, [(right, loss, family_name(experts), colours[experts]) for experts, loss in middles.items()])
    return figure


def _draw_curve(axes: Axes, row: VerdictRow, currency: str, colour: str) -> tuple[float, float]:
    spent, losses = smoothed(row.curve)
    spent = spent / row.tokens * (row.cost(currency) or 0.0)
    axes.plot(spent, losses, color=colour, linewidth=1.1, alpha=0.8)
    return float(spent[-1]), float(losses[-1])


def smoothed(curve: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """A curve without its first 8 %, as 32 means over ranges of equal ratio, so that both ends are readable."""
    points = np.asarray(curve, dtype=float)
    points = points[points[:, 0] >= 0.08 * points[-1, 0]]
    edges = np.geomspace(points[0, 0], points[-1, 0], 33)
    bins = np.clip(np.searchsorted(edges, points[:, 0], side="left") - 1, 0, 31)
    used = np.unique(bins)
    means = np.array([points[bins == number].mean(axis=0) for number in used])
    means[-1, 0] = points[-1, 0]
    return means[:, 0], means[:, 1]


def _late_range(axes: Axes) -> tuple[float, float]:
    losses = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()])
    low, high = float(losses.min()), float(np.quantile(losses, 0.97))
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _curves_title(outcomes: Mapping[str, str]) -> str:
    groups: dict[str, list[str]] = {}
    for name, outcome in outcomes.items():
        groups.setdefault(outcome, []).append(f"per {CURRENCIES[name].removesuffix('s')}")
    title = "; ".join(f"{listing(names)} {outcome}" for outcome, names in groups.items())
    return title[0].upper() + title[1:]


def _ahead(currency: str, runs: Sequence[VerdictRow]) -> str:
    curves: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for row in runs:
        spent, losses = smoothed(row.curve)
        curves.setdefault(row.family, []).append((spent / row.tokens * (row.cost(currency) or 0.0), losses))
    if len(curves) < 2:
        return f"only {listing(list(curves))} runs finished"
    low = max(curve[0][0] for side in curves.values() for curve in side)
    high = min(curve[0][-1] for side in curves.values() for curve in side)
    at = np.geomspace(low, high, 60)
    means = {family: np.mean([np.interp(at, *curve) for curve in side], axis=0) for family, side in curves.items()}
    ahead = float(np.mean(means["sparse"] < means["dense"]))
    if ahead > 0.9 or ahead < 0.1:
        return f"{'sparse' if ahead > 0.5 else 'dense'} learns faster nearly all the way"
    last = {family: [float(np.interp(at[-1], *curve)) for curve in side] for family, side in curves.items()}
    error = 2 * math.sqrt(sum(float(np.var(ends, ddof=1)) / len(ends) for ends in last.values() if len(ends) > 1))
    gap = float(means["dense"][-1] - means["sparse"][-1])
    if abs(gap) <= error:
        return "the lead changes, and neither is clearly ahead at the end"
    return f"the lead changes, and {'sparse' if gap > 0 else 'dense'} ends ahead"


def expert_load(study: Study) -> Figure | None:
    """The load of each cell's busiest expert, relative to the mean load."""
    loads = [(row.experts, row.expert_load) for row in finished(study) if row.expert_load is not None]
    if not loads:
        return None
    tried = sorted({experts for experts, _ in loads})
    most = max(load.max_over_mean for _, load in loads)
    dead = sum(load.dead_experts > 0 for _, load in loads)
    without = "no expert is unused" if not dead else f"{dead} of {len(loads)} cells have an unused expert"
    figure, (axes,) = canvas(
        f"The busiest expert gets at most {most:.1f} times its fair share; {without}",
        "One dot per cell: tokens of its busiest expert over the mean of all its experts"
        + (". Crosses: cells with an unused expert" if dead else ""),
        plot_inches=2.6,
        foot=0.42,
        right=1.1,
    )
    colours = sparsity_colours(experts_tried(study))
    axes.axhline(1, color=INK, linewidth=1)
    for index, count in enumerate(tried):
        _load_dots(axes, index, [load for experts, load in loads if experts == count], colours[count])
    axes.set_xticks(range(len(tried)), [family_name(count) for count in tried])
    axes.set_xlim(-0.5, len(tried) - 0.5)
    axes.set_ylim(0.9 if most < 3 else 0, max(1.5, 1.1 * most))
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.tick_params(length=0)
    axes.annotate(
        "perfectly even",
        (1, 1),
        xycoords=axes.get_yaxis_transform(),
        xytext=(5, 0),
        textcoords="offset points",
        color=MUTED,
        fontsize=9,
        va="center",
        annotation_clip=False,
    )
    axes.set_ylabel("busiest expert's load")
    return figure


def _load_dots(axes: Axes, index: int, loads: Sequence[Load], colour: str) -> None:
    offsets = np.linspace(-0.22, 0.22, len(loads)) if len(loads) > 1 else [0.0]
    for offset, load in zip(offsets, loads, strict=True):
        mark, edge = ("x", 2) if load.dead_experts else ("o", 0)
        axes.plot(index + offset, load.max_over_mean, mark, color=colour, markersize=6, markeredgewidth=edge)


def learning_rates(study: Study) -> Figure | None:
    """Every learning-rate scan: the loss of each rate above the scan's best."""
    scans = [scan for scan in study.learning_rates.scans if sum(loss is not None for _, loss in scan.points) >= 2]
    if not scans:
        return None
    inside = sum(bool(scan.interior) for scan in scans)
    title = (
        f"All {inside} learning-rate scans have their best rate inside the scanned range"
        if inside == len(scans)
        else f"{inside} of {len(scans)} learning-rate scans have their best rate inside the scanned range"
    )
    diverged = any(loss is None for scan in scans for _, loss in scan.points)
    figure, plots = canvas(
        title,
        "Loss of each learning rate above the best of its scan; the ring is the best"
        + (". Crosses at the top: diverged" if diverged else ""),
        plot_inches=2.4,
        columns=len(scans),
        wspace=0.1,
        sharey=True,
        headed=2,
    )
    colours = sparsity_colours(sorted({*experts_tried(study), *(scan.experts for scan in scans)}))
    top = max(1.15 * max(max(losses) - min(losses) for losses in map(_finite, scans)), 1e-3)
    for axes, scan in zip(plots, scans, strict=True):
        _scan(axes, scan, colours[scan.experts], top)
    plots[0].set_ylabel("nats per token above the best")
    plots[len(plots) // 2].set_xlabel("learning rate")
    return figure


def _finite(scan: Scan) -> list[float]:
    return [loss for _, loss in scan.points if loss is not None]


def _scan(axes: Axes, scan: Scan, colour: str, top: float) -> None:
    points = sorted((rate, loss) for rate, loss in scan.points if loss is not None)
    rates, losses = np.array(points).T
    axes.plot(rates, losses - losses.min(), "-o", color=colour, markersize=4)
    ring(axes, rates[losses.argmin()], 0, colour)
    for rate in (rate for rate, loss in scan.points if loss is None):
        axes.plot(rate, top, "x", color=colour, markeredgewidth=2)
    axes.set_title(
        f"{family_name(scan.experts)}, width {scan.d_model}\n{human_count(scan.tokens)} tokens",
        color=colour,
        fontsize=9,
    )
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_ylim(-0.08 * top, 1.08 * top)
    loss_axis(axes, None)
    log_axis(axes, None, lambda value: f"{value:g}", most=3)
