"""The picture of a study's probes: bits per byte of the right answers against validation loss, by sparsity."""

from __future__ import annotations

from matplotlib.figure import Figure

from sparsedial.records.probes import EqualLossEffect, ProbeKind, StudyProbes
from sparsedial.records.study import Study
from sparsedial.showing.drawing import INK, LOSS, canvas, loss_axis, side_names, sparsity_colours
from sparsedial.showing.rows import experts_tried
from sparsedial.showing.words import listing
from sparsedial.units import family_name

KINDS: tuple[ProbeKind, ...] = ("facts", "reading")


def probes(study: Study) -> Figure | None:
    """The answers to facts and reading of every cell, against its validation loss."""
    found = study.probes
    if found is None or not found.cells:
        return None
    figure, plots = canvas(
        _finding(found),
        "Every cell's bits per byte of the right answers, the mean over levels, against its validation loss",
        plot_inches=3.2,
        columns=len(KINDS),
        right=1.0,
        wspace=0.33,
        headed=1,
    )
    experts = {row.hash: row.experts for row in study.cells_table}
    colours = sparsity_colours(experts_tried(study))
    for axes, kind in zip(plots, KINDS, strict=True):
        for count, colour in colours.items():
            cells = [cell for cell in found.cells if experts[cell.run] == count and kind in cell.probes]
            if not cells:
                continue
            points = [(cell.loss, cell.bits_per_byte(kind)) for cell in cells]
            axes.plot(*zip(*points, strict=True), "o", color=colour, markersize=5)
        axes.set_title(kind, color=INK)
        axes.set_xlabel(LOSS)
        axes.margins(x=0.08, y=0.1)
        axes.invert_xaxis()
        loss_axis(axes, "bits per byte of the answer" if kind == KINDS[0] else None)
    side_names(plots[-1], {family_name(count): colour for count, colour in colours.items()})
    return figure


def _finding(found: StudyProbes) -> str:
    effects: dict[str, EqualLossEffect] = {"facts": found.facts_at_equal_loss, "reading": found.reading_at_equal_loss}
    resolved = [f"{_direction(effect)} {kind}" for kind, effect in effects.items() if effect.resolved]
    others = [kind for kind, effect in effects.items() if not effect.resolved]
    if not resolved:
        return f"At equal validation loss, no effect of sparsity on {listing(others)} is resolved"
    rest = f"; for {others[0]} no effect is resolved" if others else ""
    return f"At equal validation loss, more sparsity {listing(resolved)}{rest}"


def _direction(effect: EqualLossEffect) -> str:
    better = effect.effect_of_sparsity is not None and effect.effect_of_sparsity.mean < 0
    return "helps" if better else "hurts"
