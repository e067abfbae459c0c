"""Pictures of the grid: size, sparsity and the advantage of sparse, at each budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparsedial.records.study import Study
from sparsedial.showing.drawing import (
    INK,
    LOSS,
    MUTED,
    RULE,
    canvas,
    end_labels,
    log_axis,
    loss_axis,
    ring,
    same_span,
    sparsity_colours,
)
from sparsedial.showing.rows import (
    advantages,
    best_cell,
    best_of,
    budgets,
    experts_tried,
    line_of,
    near_optimal_experts,
    open_side,
)
from sparsedial.showing.words import experts_listing, power_of_ten
from sparsedial.units import family_name, signed

ARROW = 20  # points; it shows on which side a best size is open


def active_size(study: Study) -> Figure | None:
    """Loss against active size: one plot per budget, one line per sparsity, a ring around each line's best cell."""
    levels = budgets(study)
    if not levels:
        return None
    sides = [
        open_side(study, budget, experts)
        for budget in levels
        for experts in experts_tried(study)
        if line_of(study, budget, experts)
    ]
    closed, drawn = sides.count(None), len(sides)
    title = (
        f"All {drawn} best sizes have a smaller and a larger neighbour that did worse"
        if closed == drawn
        else f"{closed} of {drawn} best sizes have a smaller and a larger neighbour that did worse"
    )
    figure, plots = canvas(
        title,
        "Loss of every cell against its active parameters, one plot per FLOP budget. Rings: each sparsity's best"
        + ("" if closed == drawn else "; arrows: not bracketed"),
        plot_inches=3.2,
        columns=len(levels),
        right=0.95,
        wspace=0.33,
        headed=1,
    )
    colours = sparsity_colours(experts_tried(study))
    for axes, budget in zip(plots, levels, strict=True):
        _active_size_of(study, axes, budget, colours, crowded=len(levels) > 4)
    same_span(plots)
    plots[0].set_ylabel(LOSS, color=MUTED)
    ends = [(line_of(study, levels[-1], experts), experts) for experts in experts_tried(study)]
    open_ends = any(open_side(study, levels[-1], experts) == "larger" for line, experts in ends if line)
    end_labels(
        plots[-1],
        [
            (line[-1].active_parameters, line[-1].bounded_loss, family_name(experts), colours[experts])
            for line, experts in ends
            if line
        ],
        beside=ARROW + 6 if open_ends else 8,
    )
    return figure


def _active_size_of(study: Study, axes: Axes, budget: float, colours: Mapping[int, str], crowded: bool) -> None:
    for experts, colour in colours.items():
        line = line_of(study, budget, experts)
        if not line:
            continue
        sizes, losses = [row.active_parameters for row in line], [row.bounded_loss for row in line]
        axes.plot(sizes, losses, "-o", color=colour, markersize=4)
        best, side = int(np.argmin(losses)), open_side(study, budget, experts)
        ring(axes, sizes[best], losses[best], colour)
        if side:
            axes.annotate(
                "",
                (sizes[best], losses[best]),
                xytext=(-ARROW if side == "smaller" else ARROW, 0),
                textcoords="offset points",
                arrowprops={"arrowstyle": "<|-", "color": colour, "shrinkB": 7},
            )
    axes.set_title(f"{power_of_ten(budget)} FLOPs", color=INK)
    axes.set_xscale("log")
    axes.margins(x=0.32 if crowded else 0.22, y=0.08)
    loss_axis(axes, None)
    log_axis(axes, "active parameters", most=2 if crowded else 3)


def sparsity(study: Study) -> Figure | None:
    """Loss against sparsity: the best cell of each sparsity, one plot per budget."""
    levels, tried = budgets(study), experts_tried(study)
    if not levels or len(tried) < 2:
        return None
    best = best_cell(study, levels[-1])
    spread = study.seed_noise
    title = f"At the largest budget the best cell {'has ' if best.experts else 'is '}{family_name(best.experts)}"
    near = near_optimal_experts(study)
    if near:
        title += f"; the law calls {experts_listing(near)} near-optimal"
    bars = (
        "" if spread is None else f" Bars: two standard deviations between seeds, ±\N{NO-BREAK SPACE}{2 * spread:.3f}."
    )
    figure, plots = canvas(
        title,
        f"Loss of the best cell of each sparsity, one plot per FLOP budget; the ring is the lowest.{bars}"
        + (" Shaded: predicted within 0.5 % of the best." if near else ""),
        plot_inches=2.9,
        columns=len(levels),
        wspace=0.33,
        foot=0.78,
        headed=1,
    )
    crowded = len(levels) * len(tried) > 21
    for axes, budget in zip(plots, levels, strict=True):
        _sparsity_of(study, axes, budget, None if spread is None else 2 * spread, crowded)
        if near and budget == levels[-1]:
            positions = [tried.index(count) for count in near]
            axes.axvspan(min(positions) - 0.4, max(positions) + 0.4, color=RULE, alpha=0.6, linewidth=0)
    same_span(plots)
    plots[0].set_ylabel(LOSS)
    below = (
        "routed experts (0: dense)" if crowded else "routed experts, and the share of them that a token does not use"
    )
    figure.text(0.5, 0.16 / figure.get_figheight(), below, color=MUTED, fontsize=9.5, ha="center")
    return figure


def _sparsity_of(study: Study, axes: Axes, budget: float, bar: float | None, crowded: bool) -> None:
    tried = experts_tried(study)
    colours = sparsity_colours(tried)
    points = [(tried.index(count), row) for count in tried if (row := best_of(study, budget, count))]
    axes.plot([position for position, _ in points], [row.bounded_loss for _, row in points], color=MUTED, linewidth=1)
    lowest = min(points, key=lambda point: point[1].bounded_loss)
    for position, row in points:
        axes.errorbar(position, row.bounded_loss, yerr=bar, fmt="o", color=colours[row.experts], markersize=6)
    ring(axes, lowest[0], lowest[1].bounded_loss, colours[lowest[1].experts], 12)
    shares = {row.experts: row.sparsity for row in study.cells_table}
    names = [str(count) if crowded else f"{count or 'dense'}\n{shares[count]:.2f}" for count in tried]
    axes.set_xticks(range(len(tried)), names, fontsize=8)
    axes.set_xlim(-0.6, len(tried) - 0.4)
    axes.margins(y=0.1)
    axes.set_title(f"{power_of_ten(budget)} FLOPs", color=INK)
    loss_axis(axes, None)


def advantage(study: Study) -> Figure | None:
    """Loss of the best dense cell minus the best sparse one, against the budget, with the law's line and crossover."""
    pairs = advantages(study)
    if len(pairs) < 2:
        return None
    first, last = pairs[0][1], pairs[-1][1]
    spread, law = study.seed_noise, _law_advantages(study)
    moved = _moved(first, last, spread) + _law_moved(law)
    figure, (axes,) = canvas(
        f"From the smallest budget to the largest, the advantage of sparse {moved}",
        "Loss of the best dense cell minus that of the best sparse one, at equal FLOPs; below zero dense is better."
        + ("" if spread is None else " Bars: two standard deviations between seeds"),
        plot_inches=3.0,
        right=1.0,
    )
    colours = sparsity_colours(experts_tried(study))
    sparse = colours[max(colours)]
    axes.axhline(0, color=INK, linewidth=1)
    axes.errorbar(
        *zip(*pairs, strict=True),
        yerr=None if spread is None else 2 * math.sqrt(2) * spread,
        fmt="o",
        color=sparse,
        markersize=7,
    )
    labels = [(pairs[-1][0], last, "measured", sparse)]
    if law:
        axes.plot(*zip(*law, strict=True), color=MUTED, linewidth=1.4, zorder=1)
        labels.append((law[-1][0], law[-1][1], "the law", MUTED))
    axes.set_xscale("log")
    axes.margins(x=0.06, y=0.18)
    _draw_crossover(study, axes)
    axes.set_ylim(min(axes.get_ylim()[0], -0.1 * axes.get_ylim()[1]), axes.get_ylim()[1])
    loss_axis(axes, "dense minus sparse, nats per token")
    log_axis(axes, "training FLOPs", power_of_ten)
    end_labels(axes, labels)
    return figure


def _moved(first: float, last: float, spread: float | None) -> str:
    """How an advantage changed, given its error: each one is a difference of two cells, so four noises add up."""
    span = f"{signed(first)} to {signed(last)} nats per token"
    if spread is None:
        return f"goes from {span}; the error is not known"
    error = 2 * math.sqrt(4) * spread  # two standard deviations
    if abs(last - first) <= error:
        return f"changes by less than its error of ±\N{NO-BREAK SPACE}{error:.3f}: {span}"
    return _direction(first, last, span)


def _law_moved(law: Sequence[tuple[float, float]]) -> str:
    """What the law's line does from its first budget to its last."""
    if len(law) < 2:
        return ""
    first, last = law[0][1], law[-1][1]
    return f"; by the law it {_direction(first, last, f'{signed(first)} to {signed(last)}')}"


def _direction(first: float, last: float, span: str) -> str:
    """Whether an advantage grows or shrinks; neither where both ends are written alike."""
    if round(first, 3) == round(last, 3):
        return f"stays at {signed(first)}"
    return f"{'grows' if last > first else 'shrinks'}: {span}"


def _law_advantages(study: Study) -> list[tuple[float, float]]:
    lowest: dict[float, dict[bool, float]] = {}
    for curve in study.law_curves:
        side = lowest.setdefault(curve.budget_flops, {})
        key = bool(curve.experts)
        side[key] = min(side.get(key, math.inf), min(curve.loss))
    return [(budget, side[False] - side[True]) for budget, side in sorted(lowest.items()) if len(side) == 2]


def _draw_crossover(study: Study, axes: Axes) -> None:
    found = study.crossover
    if not found or found.currency != "flops":
        return
    first, last = budgets(study)[0], budgets(study)[-1]
    if not first / 10 < found.value < last * 10:
        return
    axes.axvline(found.value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"sparse leads from\n{power_of_ten(found.value)} FLOPs on",
        (found.value, 0.03),
        xycoords=axes.get_xaxis_transform(),
        xytext=(5, 0),
        textcoords="offset points",
        color=MUTED,
        fontsize=9,
        va="bottom",
    )
    axes.set_xlim(min(first, found.value) / 1.6, max(last, found.value) * 1.25)
