"""Pictures of the law: its curves through the cells, and its predictions of the held-out budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sparsedial.records.grid import CellRow, LawCurve
from sparsedial.records.study import Study
from sparsedial.showing.drawing import (
    INK,
    LOSS,
    MUTED,
    PAPER,
    canvas,
    end_labels,
    log_axis,
    loss_axis,
    sparsity_colours,
)
from sparsedial.showing.rows import experts_tried, finished, line_of
from sparsedial.showing.words import BASELINES, comparable_error, listing, power_of_ten
from sparsedial.units import family_name, human_percent


def law(study: Study) -> Figure | None:
    """The law's curves with their intervals and the cells, one plot per sparsity."""
    curves = study.law_curves
    if study.law.refused or not curves:
        return None
    tried = [count for count in experts_tried(study) if any(curve.experts == count for curve in curves)]
    held_out = study.law.held_out
    confidence = study.law.confidence
    typical = study.law.rmse_log_loss
    title = "The law against the cells" + ("" if typical is None else f": it is typically {human_percent(typical)} off")
    if not held_out:
        title += ", and no budget was held out to check it"
    figure, plots = canvas(
        title,
        "Lines: the law's loss, one per FLOP budget, with its"
        + (f" {human_percent(confidence)}" if confidence else "")
        + " interval. Dots: cells"
        + ("; rings: cells of the budget that was held out before this final fit" if held_out else ""),
        plot_inches=3.3,
        columns=len(tried),
        right=1.25,
        wspace=0.1,
        sharey=True,
        headed=1,
    )
    colours = sparsity_colours(experts_tried(study))
    for axes, experts in zip(plots, tried, strict=True):
        _law_of(study, axes, experts, colours[experts])
    plots[0].set_ylabel("loss, nats per token")
    ends = [curve for curve in curves if curve.experts == tried[-1]]
    labels = [(*_ends(study, curve)[-1], f"{power_of_ten(curve.budget_flops)} FLOPs", MUTED) for curve in ends]
    end_labels(plots[-1], labels)
    plots[len(plots) // 2].set_xlabel("active parameters")
    return figure


def _ends(study: Study, curve: LawCurve) -> list[tuple[float, float]]:
    """The part of a law's curve near the sizes trained at its budget, so that no plot is mostly extrapolation."""
    sizes = [row.active_parameters for row in line_of(study, curve.budget_flops, curve.experts)]
    low, high = (min(sizes) / 1.3, max(sizes) * 1.3) if sizes else (0, math.inf)
    pairs = zip(curve.active_parameters, curve.loss, strict=True)
    return [(size, loss) for size, loss in pairs if low <= size <= high] or [
        (curve.active_parameters[-1], curve.loss[-1])
    ]


def _law_of(study: Study, axes: Axes, experts: int, colour: str) -> None:
    for curve in study.law_curves:
        if curve.experts != experts:
            continue
        inside = {size for size, _ in _ends(study, curve)}
        keep = np.isin(curve.active_parameters, list(inside))
        sizes, losses, low, high = (
            np.asarray(values, dtype=float)[keep]
            for values in (curve.active_parameters, curve.loss, curve.low, curve.high)
        )
        axes.fill_between(sizes, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(sizes, losses, color=colour, linewidth=1.4)
    for row in finished(study):
        if row.experts == experts:
            face = PAPER if row.held_out else colour
            axes.plot(
                row.active_parameters,
                row.bounded_loss,
                "o",
                markersize=5.5,
                markerfacecolor=face,
                markeredgecolor=colour,
                markeredgewidth=1.5,
            )
    axes.set_title(family_name(experts), color=colour, fontweight="bold")
    axes.set_xscale("log")
    axes.margins(x=0.1)
    loss_axis(axes, None)
    log_axis(axes, None, most=2)


def held_out(study: Study) -> Figure | None:
    """Each held-out cell: prediction, interval and measurement; beside them, the errors of simple guesses."""
    check = study.law.held_out
    rows = [row for row in finished(study) if row.held_out and row.predicted_loss is not None]
    if not check or not rows:
        return None
    rows.sort(key=lambda row: (-row.experts, -row.active_parameters))
    errors = {
        "the law": comparable_error(check),
        **{BASELINES[name]: value for name, value in check.baselines.items()},
    }
    figure, (cells, bars) = canvas(
        _held_out_title(check.median_relative_error, errors) + _inside_words(rows),
        "Points: every cell of the held-out budget, predicted before it was trained."
        " Bars: median error on each sparsity's best cell",
        plot_inches=max(2.2, 0.6 + 0.21 * len(rows)),
        columns=2,
        left=1.55,
        right=0.75,
        width_ratios=[1.7, 1],
        wspace=0.2,
        headed=1,
    )
    _predictions(cells, rows, sparsity_colours(experts_tried(study)))
    _bars(bars, errors)
    return figure


def _predictions(axes: Axes, rows: Sequence[CellRow], colours: Mapping[int, str]) -> None:
    for index, row in enumerate(rows):
        colour, low, high = colours[row.experts], row.predicted_low, row.predicted_high
        if low is not None and high is not None:
            axes.plot([low, high], [index, index], color=colour, linewidth=6, alpha=0.25, solid_capstyle="butt")
        axes.plot(row.predicted_loss or 0.0, index, "|", color=colour, markersize=11, markeredgewidth=2)
        axes.plot(row.bounded_loss, index, "o", color=INK, markersize=5)
    axes.set_yticks(range(len(rows)), [f"{family_name(row.experts)}, width {row.d_model}" for row in rows])
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(colours[row.experts])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_title("▬ predicted, with its interval    ● measured", color=MUTED, fontsize=9.5)
    axes.grid(axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(LOSS)


def _held_out_title(missed: float, errors: Mapping[str, float]) -> str:
    title = f"The law missed the cells of the held-out budget by {human_percent(missed)}"
    others = {name: value for name, value in errors.items() if name != "the law"}
    better = [name for name, value in others.items() if value <= errors["the law"]]
    if better:
        return f"{title}; “{listing(better)}” did as well or better"
    return title + (", less than simple guesses" if others else "")


def _inside_words(rows: Sequence[CellRow]) -> str:
    """How many cells lie inside their predicted intervals."""
    spans = [(row.predicted_low, row.bounded_loss, row.predicted_high) for row in rows]
    known = [(low, loss, high) for low, loss, high in spans if low is not None and high is not None]
    inside = sum(low <= loss <= high for low, loss, high in known)
    return f"; {inside} of {len(known)} cells lie inside their interval" if known else ""


def _bars(axes: Axes, errors: Mapping[str, float]) -> None:
    least = min(errors.values())
    for index, (name, value) in enumerate(errors.items()):
        colour = INK if value == least else MUTED
        axes.barh(-index, value, height=0.34, color=colour)
        axes.annotate(
            human_percent(value),
            (value, -index),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontweight="bold",
            annotation_clip=False,
        )
        axes.annotate(
            name,
            (0, -index + 0.22),
            xytext=(0, 2),
            textcoords="offset points",
            va="bottom",
            color=colour,
            fontsize=9,
            annotation_clip=False,
        )
    axes.set_ylim(0.4 - len(errors), 0.75)
    axes.set_xlim(0, max(errors.values()) * 1.02)
    axes.set_axis_off()
