"""One function a picture: from a study's record to a figure whose title says the finding, or None with nothing to show."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sparsedial.showing.drawing import (
    DENSE,
    INK,
    MUTED,
    PAPER,
    RULE,
    canvas,
    end_labels,
    log_axis,
    loss_axis,
    sparsity_colours,
)
from sparsedial.showing.words import (
    CURRENCIES,
    Row,
    advantages,
    baseline_name,
    best_of,
    best_sparsity,
    budgets,
    cost,
    experts_tried,
    finished,
    headline,
    line_of,
    listing,
    metered,
    near_optimal_experts,
    open_side,
    percent,
    power_of_ten,
    seed_spread,
    signed,
    sparsity_name,
)
from sparsedial.units import human_seconds

LOSS = "validation loss, nats per token"


def verdict(study: Row) -> Figure | None:
    """The gap between the best dense and the best sparse model at equal cost, one row a currency."""
    names = [name for name in ("flops", "seconds", "joules") if name != "joules" or metered(study)]
    rows = [(name, study["verdict"][name]) for name in names if study["verdict"][name]["gap"] is not None]
    if not rows:
        return None
    seeds, confidence = rows[0][1]["seeds"], rows[0][1]["confidence"]
    figure, (axes,) = canvas(
        headline(study),
        f"Test loss of the best dense model minus the best sparse one at equal cost:"
        f" mean and {percent(confidence)} interval, {seeds} seeds each",
        plot_inches=0.35 + 0.62 * len(rows),
        left=1.25,
        right=2.1,
    )
    colours = sparsity_colours(experts_tried(study))
    strongest = colours[max(colours)]
    axes.axvline(0, color=INK, linewidth=1)
    for place, (name, row) in enumerate(rows):
        gap, winner = row["gap"], row["winner"]
        colour = {"sparse": strongest, "dense": DENSE, "undecided": MUTED}[winner]
        axes.plot([gap["low"], gap["high"]], [-place, -place], color=colour, linewidth=5, alpha=0.35)
        axes.plot(gap["mean"], -place, "o", color=colour, markersize=9)
        words = "undecided" if winner == "undecided" else f"{winner} by {abs(gap['mean']):.3f} nats"
        _beside(axes, -place, f"{words}\n{signed(gap['low'])} to {signed(gap['high'])}", colour)
        axes.text(-0.012, -place, f"equal {CURRENCIES[name]}", transform=axes.get_yaxis_transform(), ha="right", va="center")
    widest = max(max(abs(row["gap"]["low"]), abs(row["gap"]["high"])) for _, row in rows) * 1.12 or 1e-3
    least = min(0.0, *(row["gap"]["low"] for _, row in rows))
    axes.set_xlim(min(-0.3 * widest, 1.12 * least), max(0.3 * widest, 1.12 * max(row["gap"]["high"] for _, row in rows)))
    axes.set_ylim(0.75 - len(rows), 0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("nats per token")
    axes.annotate("sparse is better →", (0, 0.62), xytext=(7, 0), textcoords="offset points", color=strongest, va="center")
    axes.annotate("← dense is better", (0, 0.62), xytext=(-7, 0), textcoords="offset points", color=DENSE, va="center", ha="right")
    return figure


def _beside(axes: Axes, height: float, text: str, colour: str) -> None:
    axes.text(1.02, height, text, transform=axes.get_yaxis_transform(), color=colour, va="center", fontsize=9.5, linespacing=1.35)


def active_size(study: Row) -> Figure | None:
    """Loss against active size, one plot a budget and one line a sparsity, each line's best ringed."""
    levels = budgets(study)
    if not levels:
        return None
    lines = [line_of(study, budget, experts) for budget in levels for experts in experts_tried(study)]
    sides = [open_side(line) for line in lines if line]
    closed, drawn = sides.count(None), len(sides)
    title = (
        f"Each of the {drawn} best sizes lies between a smaller and a larger one that was tried"
        if closed == drawn
        else f"{closed} of {drawn} best sizes lie between a smaller and a larger one that was tried; {drawn - closed} stay open"
    )
    figure, plots = canvas(
        title,
        "Loss of every cell against its active parameters, one plot for each FLOP budget. Rings: best size of each sparsity"
        + ("" if closed == drawn else "; arrows: it may lie beyond"),
        plot_inches=3.2,
        columns=len(levels),
        right=0.95,
        wspace=0.33,
    )
    colours = sparsity_colours(experts_tried(study))
    for axes, budget in zip(plots, levels, strict=True):
        _active_size_of(study, axes, budget, colours)
    plots[0].set_ylabel(LOSS, color=MUTED)
    figure.canvas.draw()
    ends = [(line_of(study, levels[-1], experts), experts) for experts in experts_tried(study)]
    end_labels(
        plots[-1],
        [
            (line[-1]["active_parameters"], line[-1]["loss"], sparsity_name(experts), colours[experts])
            for line, experts in ends
            if line
        ],
    )
    return figure


def _active_size_of(study: Row, axes: Axes, budget: float, colours: Mapping[int, str]) -> None:
    for experts, colour in colours.items():
        line = line_of(study, budget, experts)
        if not line:
            continue
        sizes, losses = [row["active_parameters"] for row in line], [row["loss"] for row in line]
        axes.plot(sizes, losses, "-o", color=colour, markersize=4)
        best, side = int(np.argmin(losses)), open_side(line)
        axes.plot(sizes[best], losses[best], "o", markersize=10, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1.6)
        if side:
            axes.annotate(
                "",
                (sizes[best], losses[best]),
                xytext=(-24 if side == "smaller" else 24, 0),
                textcoords="offset points",
                arrowprops={"arrowstyle": "<|-", "color": colour, "shrinkB": 7},
            )
    axes.set_title(f"{power_of_ten(budget)} FLOPs", color=INK)
    axes.margins(x=0.12, y=0.08)
    loss_axis(axes, None)
    log_axis(axes, "active parameters")


def sparsity(study: Row) -> Figure | None:
    """Loss against sparsity: the best cell of each sparsity, one line a budget."""
    levels, tried = budgets(study), experts_tried(study)
    if not levels or len(tried) < 2:
        return None
    best = best_sparsity(study, levels[-1])
    spread = seed_spread(study)
    title = f"At the largest budget the best cell is {'dense' if not best['experts'] else f'one with {best["experts"]} experts'}"
    near = near_optimal_experts(study)
    if near:
        title += f"; the law calls {listing([sparsity_name(count) for count in near])} near-optimal"
    figure, (axes,) = canvas(
        title,
        "Loss of the best cell of each sparsity, one line for each FLOP budget; the ring is the line's lowest."
        + ("" if spread is None else f" Bars: ± {2 * spread:.3f}, two standard deviations between seeds.")
        + (" Shaded: predicted within 0.5 % of the best." if near else ""),
        plot_inches=3.9,
        right=1.35,
    )
    colours = sparsity_colours(tried)
    if near:
        places = [tried.index(count) for count in near]
        axes.axvspan(min(places) - 0.4, max(places) + 0.4, color=RULE, alpha=0.45, linewidth=0)
    labels = []
    for budget in levels:
        points = [(tried.index(row["experts"]), row) for count in tried if (row := best_of(study, budget, count))]
        axes.plot([place for place, _ in points], [row["loss"] for _, row in points], color=MUTED, linewidth=1.2)
        lowest = min(row["loss"] for _, row in points)
        for place, row in points:
            axes.errorbar(
                place, row["loss"], yerr=None if spread is None else 2 * spread, fmt="o", color=colours[row["experts"]], markersize=7
            )
            if row["loss"] == lowest:
                axes.plot(place, lowest, "o", markersize=13, markerfacecolor="none", markeredgecolor=colours[row["experts"]], markeredgewidth=1.6)
        labels.append((points[-1][0], points[-1][1]["loss"], f"{power_of_ten(budget)} FLOPs", MUTED))
    shares = {row["experts"]: row["sparsity"] for row in study["cells_table"]}
    axes.set_xticks(range(len(tried)), [f"{sparsity_name(count)}\n{shares.get(count, 0):.2f}" for count in tried])
    axes.set_xlim(-0.5, len(tried) - 0.5)
    axes.set_xlabel("routed experts, and the share of them that a token leaves out")
    loss_axis(axes, LOSS)
    figure.canvas.draw()
    end_labels(axes, labels)
    return figure


def advantage(study: Row) -> Figure | None:
    """By how much the best sparse cell beats the best dense one, against the budget, with the law's line and its crossover."""
    pairs = advantages(study)
    if len(pairs) < 2:
        return None
    first, last = pairs[0][1], pairs[-1][1]
    moved = "grows" if last > first + 0.005 else "shrinks" if last < first - 0.005 else "stays about the same"
    figure, (axes,) = canvas(
        f"From the smallest budget to the largest, the lead of sparse {moved}: {signed(first)} to {signed(last)} nats per token",
        "Loss of the best dense cell minus that of the best sparse one, at equal FLOPs; below zero dense is better",
        plot_inches=3.0,
        right=1.6,
    )
    colours = sparsity_colours(experts_tried(study))
    sparse = colours[max(colours)]
    axes.axhline(0, color=INK, linewidth=1)
    spread = seed_spread(study)
    axes.errorbar(*zip(*pairs, strict=True), yerr=None if spread is None else 2 * math.sqrt(2) * spread, fmt="o", color=sparse, markersize=7)
    labels = [(pairs[-1][0], last, "measured" if spread is None else "measured,\n± two standard\ndeviations", sparse)]
    law = _law_advantages(study)
    if law:
        axes.plot(*zip(*law, strict=True), color=MUTED, linewidth=1.4, zorder=1)
        labels.append((law[-1][0], law[-1][1], "the law", MUTED))
    axes.margins(x=0.06, y=0.18)
    _draw_crossover(study, axes)
    axes.set_ylim(min(axes.get_ylim()[0], -0.1 * axes.get_ylim()[1]), axes.get_ylim()[1])
    loss_axis(axes, "dense minus sparse, nats per token")
    log_axis(axes, "training FLOPs", power_of_ten)
    figure.canvas.draw()
    end_labels(axes, labels, least_points=26)
    return figure


def _law_advantages(study: Row) -> list[tuple[float, float]]:
    lowest: dict[float, dict[bool, float]] = {}
    for curve in study["law_curves"] or []:
        side = lowest.setdefault(curve["budget_flops"], {})
        key = bool(curve["experts"])
        side[key] = min(side.get(key, math.inf), min(curve["loss"]))
    return [(budget, side[False] - side[True]) for budget, side in sorted(lowest.items()) if len(side) == 2]


def _draw_crossover(study: Row, axes: Axes) -> None:
    found = study["crossover"]
    if not found or found["currency"] != "flops":
        return
    low, high = axes.get_xlim()
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    first, last = budgets(study)[0], budgets(study)[-1]
    if not first / 10 < found["value"] < last * 10:
        return
    axes.axvline(found["value"], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"sparse leads from\n{power_of_ten(found['value'])} FLOPs on",
        (found["value"], 0.03),
        xycoords=axes.get_xaxis_transform(),
        xytext=(5, 0),
        textcoords="offset points",
        color=MUTED,
        fontsize=9,
        va="bottom",
    )
    axes.set_xlim(min(first, found["value"]) / 1.6, max(last, found["value"]) * 1.25)


def seconds(study: Row) -> Figure | None:
    """Loss against measured seconds."""
    return _against_cost(study, "seconds", "seconds of training")


def joules(study: Row) -> Figure | None:
    """Loss against measured joules; None without a meter, since it is then the seconds' picture with another scale."""
    return _against_cost(study, "joules", "joules of training") if metered(study) else None


def _against_cost(study: Row, currency: str, label: str) -> Figure | None:
    """The lowest loss that each sparsity reached by a cost, and the two models that were trained to equal cost."""
    cells = [row for row in finished(study) if row.get(currency)]
    runs = [row for row in study["verdict_runs"] or [] if row["currency"] == currency and row["status"] == "finished" and row.get(currency)]
    if not cells:
        return None
    found = study["verdict"][currency]
    outcome = {"sparse": "sparse is better", "dense": "dense is better", "undecided": "nothing is decided"}[found["winner"]]
    where = f"At equal {CURRENCIES[currency]}" + (f" ({cost(currency, found['budget']['value'])})" if runs else "")
    beside = "alone on the machine" if all(row["alone"] for row in cells) else "beside other cells"
    figure, (axes,) = canvas(
        f"{where} {outcome}",
        f"Dots: cells of the grid, trained {beside}; steps: the lowest loss of each sparsity by then."
        + (" Diamonds: the verdict's runs, alone and in turn." if runs else ""),
        plot_inches=4.0,
        right=1.15,
    )
    colours = sparsity_colours(experts_tried(study))
    most = max(row[currency] for row in [*cells, *runs]) * 1.05
    labels = []
    for experts, colour in colours.items():
        own = sorted((row[currency], row["loss"]) for row in cells if row["experts"] == experts)
        if not own:
            continue
        costs, losses = zip(*own, strict=True)
        lowest = np.minimum.accumulate(losses)
        axes.scatter(costs, losses, s=14, color=colour, alpha=0.35, linewidths=0)
        axes.step([*costs, most], [*lowest, lowest[-1]], where="post", color=colour)
        labels.append((most, float(lowest[-1]), sparsity_name(experts), colour))
    for row in runs:
        axes.plot(row[currency], row["loss"], "D", color=colours[row["experts"]], markersize=8, markeredgecolor=PAPER, zorder=5)
    budget = found["budget"]["value"]
    if runs and budget:
        axes.axvline(budget, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate("equal cost", (budget, 1), xycoords=axes.get_xaxis_transform(), xytext=(-5, -3), textcoords="offset points", ha="right", va="top", color=MUTED, fontsize=9)
    axes.margins(x=0.03)
    loss_axis(axes, LOSS)
    spell = {"seconds": human_seconds, "joules": lambda value: cost("joules", value)}[currency]
    log_axis(axes, label, spell)
    axes.set_xlim(right=most)
    figure.canvas.draw()
    end_labels(axes, labels)
    return figure


def law(study: Row) -> Figure | None:
    """The law's curves with their interval, one plot a sparsity, and the cells on them."""
    curves = study["law_curves"] or []
    if study["law"]["refused"] or not curves:
        return None
    tried = [count for count in experts_tried(study) if any(curve["experts"] == count for curve in curves)]
    held_out = study["law"]["held_out"]
    confidence = study["law"].get("confidence")
    title = (
        f"The law predicted the held-out budget within {percent(held_out['median_relative_error'])} in the median"
        if held_out
        else "The law through its cells; no budget was held out to check it"
    )
    figure, plots = canvas(
        title,
        "Lines: the law's loss, one for each FLOP budget, with its"
        + (f" {percent(confidence)}" if confidence else "")
        + " interval. Dots: cells"
        + ("; rings: cells of the held-out budget" if held_out else ""),
        plot_inches=3.3,
        columns=len(tried),
        right=0.85,
        wspace=0.1,
        sharey=True,
    )
    colours = sparsity_colours(experts_tried(study))
    for axes, experts in zip(plots, tried, strict=True):
        _law_of(study, axes, experts, colours[experts])
    plots[0].set_ylabel("loss, nats per token")
    figure.canvas.draw()
    ends = [curve for curve in curves if curve["experts"] == tried[-1]]
    end_labels(plots[-1], [(*_ends(study, curve)[-1], power_of_ten(curve["budget_flops"]), MUTED) for curve in ends])
    plots[-1].annotate("FLOPs", (1, 1), xycoords="axes fraction", xytext=(8, 2), textcoords="offset points", color=MUTED, fontsize=9, fontweight="bold", annotation_clip=False)
    return figure


def _ends(study: Row, curve: Row) -> list[tuple[float, float]]:
    """The part of a law's curve near the sizes that were trained at its budget, so that no plot is all extrapolation."""
    sizes = [row["active_parameters"] for row in line_of(study, curve["budget_flops"], curve["experts"])]
    low, high = (min(sizes) / 1.3, max(sizes) * 1.3) if sizes else (0, math.inf)
    pairs = zip(curve["active_parameters"], curve["loss"], strict=True)
    return [(size, loss) for size, loss in pairs if low <= size <= high] or [(curve["active_parameters"][-1], curve["loss"][-1])]


def _law_of(study: Row, axes: Axes, experts: int, colour: str) -> None:
    for curve in study["law_curves"]:
        if curve["experts"] != experts:
            continue
        inside = {size for size, _ in _ends(study, curve)}
        keep = np.isin(curve["active_parameters"], list(inside))
        sizes, losses, low, high = (np.asarray(curve[key], dtype=float)[keep] for key in ("active_parameters", "loss", "low", "high"))
        axes.fill_between(sizes, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(sizes, losses, color=colour, linewidth=1.4)
    for row in finished(study):
        if row["experts"] == experts:
            face = PAPER if row["held_out"] else colour
            axes.plot(row["active_parameters"], row["loss"], "o", markersize=5.5, markerfacecolor=face, markeredgecolor=colour, markeredgewidth=1.5)
    axes.set_title(sparsity_name(experts), color=colour, fontweight="bold")
    axes.margins(x=0.1)
    loss_axis(axes, None)
    log_axis(axes, "active parameters")


def held_out(study: Row) -> Figure | None:
    """Each held-out cell's prediction with its interval and what came out; beside it the errors of the plain guesses."""
    check = study["law"]["held_out"]
    rows = [row for row in finished(study) if row["held_out"] and row["predicted_loss"] is not None]
    if not check or not rows:
        return None
    rows.sort(key=lambda row: (-row["experts"], -row["active_parameters"]))
    errors = {"the law": check["median_relative_error"], **{baseline_name(name): value for name, value in check["baselines"].items()}}
    errors = {name: value for name, value in errors.items() if value is not None}
    figure, (cells, bars) = canvas(
        _held_out_title(errors),
        f"Left: every cell of the held-out budget, predicted before it was looked at. Right: median relative error on these {len(rows)} cells",
        plot_inches=max(2.2, 0.6 + 0.21 * len(rows)),
        columns=2,
        left=1.55,
        right=0.75,
        width_ratios=[1.7, 1],
        wspace=0.2,
    )
    colours = sparsity_colours(experts_tried(study))
    for place, row in enumerate(rows):
        colour = colours[row["experts"]]
        if row["predicted_low"] is not None and row["predicted_high"] is not None:
            cells.plot([row["predicted_low"], row["predicted_high"]], [place, place], color=colour, linewidth=6, alpha=0.25, solid_capstyle="butt")
        cells.plot(row["predicted_loss"], place, "|", color=colour, markersize=11, markeredgewidth=2)
        cells.plot(row["loss"], place, "o", color=INK, markersize=5)
    cells.set_yticks(range(len(rows)), [f"{sparsity_name(row['experts'])}, width {row['d_model']}" for row in rows])
    for tick, row in zip(cells.get_yticklabels(), rows, strict=True):
        tick.set_color(colours[row["experts"]])
    cells.tick_params(axis="y", length=0)
    cells.set_ylim(-0.7, len(rows) - 0.3)
    cells.set_title("▬ predicted, with its interval    ● measured", color=MUTED, fontsize=9.5)
    cells.grid(axis="x")
    cells.xaxis.set_major_locator(MaxNLocator(6))
    cells.set_xlabel(LOSS)
    _bars(bars, errors)
    return figure


def _held_out_title(errors: Mapping[str, float]) -> str:
    others = {name: value for name, value in errors.items() if name != "the law"}
    own = errors["the law"]
    better = [name for name, value in others.items() if value <= own]
    if better:
        return f"The law missed the held-out budget by {percent(own)}; “{listing(better)}” did as well or better"
    return f"The law missed the held-out budget by {percent(own)}" + (", less than the plain guesses did" if others else "")


def _bars(axes: Axes, errors: Mapping[str, float]) -> None:
    least = min(errors.values())
    for place, (name, value) in enumerate(errors.items()):
        colour = INK if value == least else MUTED
        axes.barh(-place, value, height=0.34, color=colour)
        axes.annotate(percent(value), (value, -place), xytext=(5, 0), textcoords="offset points", va="center", color=colour, fontweight="bold", annotation_clip=False)
        axes.annotate(name, (0, -place + 0.22), xytext=(0, 2), textcoords="offset points", va="bottom", color=colour, fontsize=9, annotation_clip=False)
    axes.set_ylim(0.4 - len(errors), 0.75)
    axes.set_xlim(0, max(errors.values()) * 1.02)
    axes.set_axis_off()


def expert_load(study: Row) -> Figure | None:
    """How much more than its fair share the busiest expert of each cell got."""
    rows = [row for row in finished(study) if row["expert_load"] and row["expert_load"]["max_over_mean"] is not None]
    if not rows:
        return None
    tried = sorted({row["experts"] for row in rows})
    most = max(row["expert_load"]["max_over_mean"] for row in rows)
    dead = [row for row in rows if row["expert_load"]["dead_experts"]]
    without = "no expert is unused" if not dead else f"{len(dead)} of {len(rows)} cells have an expert that nothing reaches"
    figure, (axes,) = canvas(
        f"The busiest expert gets at most {most:.1f} times its fair share; {without}",
        "One dot a cell: tokens of its busiest expert over the mean of all its experts"
        + (". Crosses: cells with an unused expert" if dead else ""),
        plot_inches=2.6,
    )
    colours = sparsity_colours(experts_tried(study))
    axes.axhline(1, color=INK, linewidth=1)
    for place, count in enumerate(tried):
        own = [row for row in rows if row["experts"] == count]
        for offset, row in zip(np.linspace(-0.22, 0.22, len(own)) if len(own) > 1 else [0.0], own, strict=True):
            mark = "x" if row["expert_load"]["dead_experts"] else "o"
            axes.plot(place + offset, row["expert_load"]["max_over_mean"], mark, color=colours[count], markersize=6, markeredgewidth=2 if mark == "x" else 0)
    axes.set_xticks(range(len(tried)), [sparsity_name(count) for count in tried])
    axes.set_xlim(-0.5, len(tried) - 0.5)
    axes.set_ylim(0.9 if most < 3 else 0, max(1.5, 1.1 * most))
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.tick_params(length=0)
    axes.annotate("perfectly even", (0.005, 1), xycoords=axes.get_yaxis_transform(), xytext=(0, 3), textcoords="offset points", color=MUTED, fontsize=9)
    axes.set_ylabel("busiest expert's load")
    return figure


def training_curves(study: Row) -> Figure | None:
    """Training loss of the verdict's runs against what they had spent, one plot a currency."""
    runs = [row for row in study["verdict_runs"] or [] if len(row.get("curve") or []) >= 10 and row["status"] == "finished"]
    names = [name for name in ("flops", "seconds", "joules") if any(row["currency"] == name and row.get(name) for row in runs)]
    if not names:
        return None
    figure, plots = canvas(
        " and ".join(_ahead(name, [row for row in runs if row["currency"] == name], opening=place == 0) for place, name in enumerate(names)),
        "Training loss (smoothed) of the verdict's runs against what they had spent, one thin line a seed, learning rate falling at the end",
        plot_inches=3.3,
        columns=len(names),
        right=1.05,
        wspace=0.3,
    )
    colours = sparsity_colours(experts_tried(study))
    for axes, name in zip(plots, names, strict=True):
        own = [row for row in runs if row["currency"] == name and row.get(name)]
        ends = {row["experts"]: _draw_curve(axes, row, name, colours[row["experts"]]) for row in own}
        axes.set_title(f"equal {CURRENCIES[name]}", color=INK)
        loss_axis(axes, "training loss, nats per token" if name == names[0] else None)
        axes.set_ylim(*_late_range(axes))
        log_axis(axes, {"flops": "FLOPs spent", "seconds": "seconds spent", "joules": "joules spent"}[name], {"flops": power_of_ten}.get(name, lambda value: f"{value:g}"))
        figure.canvas.draw()
        end_labels(axes, [(*end, sparsity_name(experts), colours[experts]) for experts, end in ends.items()])
    return figure


def _draw_curve(axes: Axes, row: Row, currency: str, colour: str) -> tuple[float, float]:
    spent, losses = smoothed(row["curve"])
    spent = spent / row["tokens"] * row[currency]
    axes.plot(spent, losses, color=colour, linewidth=1.1, alpha=0.8)
    return float(spent[-1]), float(losses[-1])


def smoothed(curve: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """A curve without its first 3 %, in 48 means over ranges of equal ratio, so that both ends stay readable."""
    points = np.asarray(curve, dtype=float)
    points = points[points[:, 0] >= 0.03 * points[-1, 0]]
    edges = np.geomspace(points[0, 0], points[-1, 0], 49)
    bins = np.clip(np.searchsorted(edges, points[:, 0], side="left") - 1, 0, 47)
    used = np.unique(bins)
    means = np.array([points[bins == number].mean(axis=0) for number in used])
    means[-1, 0] = points[-1, 0]
    return means[:, 0], means[:, 1]


def _late_range(axes: Axes) -> tuple[float, float]:
    losses = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()])
    low, high = float(losses.min()), float(np.quantile(losses, 0.97))
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _ahead(currency: str, runs: Sequence[Row], opening: bool) -> str:
    start = f"{'Per' if opening else 'per'} {CURRENCIES[currency].removesuffix('s')}"
    curves: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for row in runs:
        spent, losses = smoothed(row["curve"])
        curves.setdefault(row["family"], []).append((spent / row["tokens"] * row[currency], losses))
    if len(curves) < 2:
        return f"{start} only {listing(list(curves))} runs finished"
    low = max(curve[0][0] for side in curves.values() for curve in side)
    high = min(curve[0][-1] for side in curves.values() for curve in side)
    at = np.geomspace(low, high, 60)
    means = {family: np.mean([np.interp(at, *curve) for curve in side], axis=0) for family, side in curves.items()}
    ahead = float(np.mean(means["sparse"][20:] < means["dense"][20:]))
    if ahead > 0.9 or ahead < 0.1:
        return f"{start} {'sparse' if ahead > 0.5 else 'dense'} learns faster nearly all the way"
    return f"{start} the lead changes on the way"


def learning_rates(study: Row) -> Figure | None:
    """Every learning-rate scan: how much worse than its own best each rate was."""
    scans = [scan for scan in study["learning_rates"]["scans"] if sum(loss is not None for _, loss in scan["points"]) >= 2]
    if not scans:
        return None
    inside = sum(bool(scan["interior"]) for scan in scans)
    title = (
        f"All {inside} learning-rate scans have their best rate inside"
        if inside == len(scans)
        else f"{inside} of {len(scans)} learning-rate scans have their best rate inside; the others are open on a side"
    )
    diverged = any(loss is None for scan in scans for _, loss in scan["points"])
    figure, (axes,) = canvas(
        title,
        "How much worse than the scan's best each learning rate was; the ring is the best"
        + (". Crosses at the top: diverged" if diverged else ""),
        plot_inches=3.0,
        right=2.3,
    )
    colours = sparsity_colours(sorted({*experts_tried(study), *(scan["experts"] for scan in scans)}))
    worst = max(loss - min(losses) for scan in scans for loss in (losses := [x for _, x in scan["points"] if x is not None]))
    top = max(worst * 1.15, 1e-3)
    labels = []
    for place, scan in enumerate(scans):
        points = sorted((rate, loss) for rate, loss in scan["points"] if loss is not None)
        rates, losses = np.array(points).T
        colour = colours[scan["experts"]]
        dashes = "-" if place % 2 == 0 else (0, (4, 2))
        axes.plot(rates, losses - losses.min(), "o", linestyle=dashes, color=colour, markersize=4)
        axes.plot(rates[losses.argmin()], 0, "o", markersize=10, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1.6)
        axes.plot(*zip(*[(rate, top) for rate, loss in scan["points"] if loss is None] or [(math.nan, math.nan)], strict=True), "x", color=colour, markeredgewidth=2)
        labels.append((float(rates[-1]), float(losses[-1] - losses.min()), f"{sparsity_name(scan['experts'])}, width {scan['d_model']}", colour))
    axes.set_ylim(-0.06 * top, 1.06 * top)
    loss_axis(axes, "nats per token above the best")
    log_axis(axes, "learning rate", lambda value: f"{value:g}")
    figure.canvas.draw()
    _labels_at_edge(axes, labels)
    return figure


def _labels_at_edge(axes: Axes, labels: Sequence[tuple[float, float, str, str]]) -> None:
    edge = axes.get_xlim()[1]
    end_labels(axes, [(edge, height, text, colour) for _, height, text, colour in labels], least_points=13)


FIGURES: dict[str, Callable[[Mapping[str, Any]], Figure | None]] = {
    "verdict": verdict,
    "sparsity": sparsity,
    "advantage": advantage,
    "active_size": active_size,
    "seconds": seconds,
    "joules": joules,
    "training_curves": training_curves,
    "law": law,
    "held_out": held_out,
    "expert_load": expert_load,
    "learning_rates": learning_rates,
}
