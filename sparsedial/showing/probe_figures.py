"""The pictures of a study's probes: the answers by sparsity, and at equal validation loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from sparsedial.records.probes import EqualLossEffect, ProbeKind, StudyProbes
from sparsedial.records.study import Study
from sparsedial.showing.drawing import INK, LOSS, MUTED, canvas, loss_axis, ring, side_names, sparsity_colours
from sparsedial.showing.rows import best_of, budgets, experts_tried
from sparsedial.showing.words import listing, power_of_ten
from sparsedial.units import family_name

KINDS: tuple[ProbeKind, ...] = ("facts", "reading")
ALL_KINDS: tuple[ProbeKind, ...] = ("arithmetic", *KINDS)


def abilities(study: Study) -> Figure | None:
    """Validation loss and answers of the best cell of each sparsity at the largest budget."""
    scored = {cell.run: cell for cell in study.probes.cells} if study.probes else {}
    top = max(budgets(study), default=0.0)
    best = [row for experts in experts_tried(study) if (row := best_of(study, top, experts)) and row.hash in scored]
    cells = [scored[row.hash] for row in best]
    kinds: list[ProbeKind] = [kind for kind in ALL_KINDS if all(kind in cell.probes for cell in cells)]
    if len(best) < 2 or not kinds:
        return None
    measures = {
        "loss": [cell.loss for cell in cells],
        **{kind: [cell.bits_per_byte(kind) for cell in cells] for kind in kinds},
    }
    names = [family_name(row.experts) for row in best]
    figure, plots = canvas(
        f"At {power_of_ten(top)} FLOPs, {_lowest(measures, names)}",
        "The cell of each sparsity that has the lowest validation loss, one run each; a ring marks the lowest value."
        " Loss in nats per token, answers in bits per byte of the right answer, the mean over levels",
        plot_inches=2.4,
        columns=len(measures),
        wspace=0.42,
        headed=1,
    )
    colours = sparsity_colours(experts_tried(study))
    places = range(len(best))
    for axes, (name, values) in zip(plots, measures.items(), strict=True):
        axes.plot(places, values, color=MUTED, linewidth=1)
        for place, row, value in zip(places, best, values, strict=True):
            axes.plot(place, value, "o", color=colours[row.experts], markersize=6)
        place = values.index(min(values))
        ring(axes, place, values[place], colours[best[place].experts], size=12)
        axes.set_title(name, color=INK)
        axes.set_xticks(places, [str(row.experts or "dense") for row in best])
        axes.set_xlabel("experts")
        axes.margins(x=0.15, y=0.2)
        loss_axis(axes, None)
    return figure


def _lowest(measures: Mapping[str, Sequence[float]], names: Sequence[str]) -> str:
    """`32 experts are best at loss and facts, dense at reading`."""
    best: dict[str, list[str]] = {}
    for measure, values in measures.items():
        best.setdefault(names[values.index(min(values))], []).append(measure)
    (first, at), *others = ((name, listing(found)) for name, found in best.items())
    verb = "is" if first == family_name(0) else "are"
    return ", ".join([f"{first} {verb} best at {at}", *(f"{name} at {at}" for name, at in others)])


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
