"""One function per picture: a study's record becomes a figure whose title states the finding, or None without data."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sparsedial.records.study import Study
from sparsedial.showing.drawing import (
    DENSE,
    INK,
    MUTED,
    canvas,
    sparsity_colours,
)
from sparsedial.showing.grid_figures import active_size, advantage, sparsity
from sparsedial.showing.kept_figure import kept_shares
from sparsedial.showing.law_figures import held_out, law
from sparsedial.showing.probe_figures import abilities, probes
from sparsedial.showing.rows import experts_tried
from sparsedial.showing.run_figures import expert_load, joules, learning_rates, seconds, training_curves
from sparsedial.showing.words import CURRENCIES, headline, metered
from sparsedial.units import human_percent, signed


def verdict(study: Study) -> Figure | None:
    """The gap between the best dense and the best sparse model at equal cost, one row per currency."""
    names = [name for name in CURRENCIES if name != "joules" or metered(study.verdict)]
    verdicts = {name: study.verdict.of(name) for name in names}
    rows = [(name, verdict, verdict.gap) for name, verdict in verdicts.items() if verdict.gap is not None]
    if not rows:
        return None
    seeds, confidence = min(row.seeds for _, row, _ in rows), rows[0][1].confidence
    figure, (axes,) = canvas(
        headline(study.verdict),
        f"Test loss of the best dense model minus the best sparse one at equal cost:"
        f" mean and {human_percent(confidence)} interval, at least {seeds} seeds each",
        plot_inches=0.35 + 0.62 * len(rows),
        left=1.25,
        right=2.1,
    )
    colours = sparsity_colours(experts_tried(study))
    strongest = colours[max(colours)]
    axes.axvline(0, color=INK, linewidth=1)
    for index, (name, row, gap) in enumerate(rows):
        winner = row.winner
        colour = {"sparse": strongest, "dense": DENSE, "undecided": MUTED}[winner]
        axes.plot([gap.low, gap.high], [-index, -index], color=colour, linewidth=5, alpha=0.35)
        axes.plot(gap.mean, -index, "o", color=colour, markersize=9)
        words = "undecided" if winner == "undecided" else f"{winner} by {abs(gap.mean):.3f} nats"
        _beside(axes, -index, f"{words}\n{signed(gap.low)} to {signed(gap.high)}", colour)
        axes.text(
            -0.012, -index, f"equal {CURRENCIES[name]}", transform=axes.get_yaxis_transform(), ha="right", va="center"
        )
    widest = max(max(abs(gap.low), abs(gap.high)) for _, _, gap in rows) * 1.12 or 1e-3
    least = min(0.0, *(gap.low for _, _, gap in rows))
    axes.set_xlim(min(-0.3 * widest, 1.12 * least), max(0.3 * widest, 1.12 * max(gap.high for _, _, gap in rows)))
    axes.set_ylim(0.75 - len(rows), 0.8)
    axes.set_yticks([])
    axes.spines.left.set_visible(False)
    axes.grid(axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("nats per token")
    axes.annotate(
        "sparse is better →", (0, 0.62), xytext=(7, 0), textcoords="offset points", color=strongest, va="center"
    )
    axes.annotate(
        "← dense is better", (0, 0.62), xytext=(-7, 0), textcoords="offset points", color=DENSE, va="center", ha="right"
    )
    return figure


def _beside(axes: Axes, height: float, text: str, colour: str) -> None:
    axes.text(
        1.02,
        height,
        text,
        transform=axes.get_yaxis_transform(),
        color=colour,
        va="center",
        fontsize=9.5,
        linespacing=1.35,
    )


FIGURES: dict[str, Callable[[Study], Figure | None]] = {
    "verdict": verdict,
    "sparsity": sparsity,
    "advantage": advantage,
    "active_size": active_size,
    "seconds": seconds,
    "joules": joules,
    "training_curves": training_curves,
    "abilities": abilities,
    "probes": probes,
    "kept_shares": kept_shares,
    "law": law,
    "held_out": held_out,
    "expert_load": expert_load,
    "learning_rates": learning_rates,
}
