"""The picture of `prune --compare`: the loss that each method adds, against what stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from sparsedial.errors import needs
from sparsedial.pruning.methods import METHODS
from sparsedial.records.compare import Axis, Compared, ComparedPoint
from sparsedial.store import write_atomically
from sparsedial.units import human_bytes, human_count, human_percent, signed

with needs("matplotlib", "study"):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import ConnectionPatch
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
    from matplotlib.transforms import ScaledTranslation, Transform

    from sparsedial.showing.drawing import canvas, end_labels, log_ticks, loss_axis, png, ring, style, svg
    from sparsedial.showing.palette import COLOURS, MUTED

PICTURE, VECTOR = "compare.png", "compare.svg"
STAYS: Mapping[Axis, str] = {
    "active_parameters": "parameters of a token that stay",
    "weight_bytes": "bytes of the weights that stay",
    "share": "share of the weights that is not zero; all are stored",
}
ASIDE_POINTS = 3
Ringed = tuple[float, float, Transform]  # what stays, the loss, and where its method is drawn
FAR = 20  # times: losses that lie further apart get a logarithmic axis
BELOW = 4  # times: how far below the least loss it goes; the end of an interval may be as good as 0


def write_picture(answer: Compared, folder: Path) -> None:
    """Write the picture as PNG and as SVG.

    Raises: UserError where they cannot be written.
    """
    figure = comparison(answer)
    write_atomically(folder / PICTURE, png(figure))
    write_atomically(folder / VECTOR, svg(figure))


def comparison(answer: Compared) -> Figure:
    """Added loss against what stays: a line for each method, a ring around each point on the Pareto front."""
    with style():
        figure, (axes,) = canvas(
            _finding(answer),
            "Loss added on held-out windows of the calibration text, with its 95 % interval."
            f" {_ringed(answer)}: nothing that keeps as little adds less. Grey: random choices",
            plot_inches=3.4,
            right=1.5,
        )
        _draw(axes, answer)
    return figure


def _draw(axes: Axes, answer: Compared) -> None:
    labels, front, methods = [], _on_front(answer), _by_method(answer)
    ringed: list[Ringed] = []
    end = max(point.stays(answer.axis) for point in answer.points)
    for number, (name, points) in enumerate(methods.items()):
        colour, aside = _colour(name, methods), _aside(axes, number, len(methods))
        places = [(point.stays(answer.axis), answer.increase(point)) for point in points]
        for x, grown in places:
            axes.update_datalim([(x, y) for y in (grown.mean, grown.low, grown.high) if y is not None])
            if grown.low is not None and grown.high is not None:
                axes.plot([x, x], [grown.low, grown.high], color=colour, linewidth=4, alpha=0.35, transform=aside)
        means = [grown.mean for _, grown in places]
        axes.plot([x for x, _ in places], means, "-o", color=colour, markersize=5, transform=aside)
        for point, mean in zip(points, means, strict=True):
            if point in front:
                ring(axes, point.stays(answer.axis), mean, MUTED, transform=aside)
                ringed.append((point.stays(answer.axis), mean, aside))
        labels.append((end, means[-1], name, colour))
    _connect(axes, ringed)
    axes.margins(x=0.08, y=0.1)
    _scale(axes, [answer.increase(point).mean for point in answer.points])
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _spelled(answer.axis, value)))
    axes.set_xlabel(STAYS[answer.axis])
    end_labels(axes, labels, beside=8 + ASIDE_POINTS * len(methods) / 2)


def _connect(axes: Axes, ringed: Sequence[Ringed]) -> None:
    """A dashed line from ring to ring, each of which is drawn aside as its method is."""
    look = {"color": MUTED, "linewidth": 1.2, "linestyle": (0, (4, 3)), "zorder": 1}
    for one, other in pairwise(sorted(ringed, key=lambda each: each[:2])):
        axes.add_artist(ConnectionPatch(one[:2], other[:2], one[2], other[2], **look))


def _colour(name: str, methods: Iterable[str]) -> str:
    """Of a method; random choices, the control, are grey."""
    chosen = [each for each in methods if not METHODS[each].drawn]
    return MUTED if METHODS[name].drawn else COLOURS[chosen.index(name) % (len(COLOURS) - 1)]


def _aside(axes: Axes, number: int, count: int) -> Transform:
    """Where a method's points are drawn: a little aside, so that intervals of several are seen."""
    figure = axes.get_figure()
    assert figure is not None
    inches = (number - (count - 1) / 2) * ASIDE_POINTS / 72
    return axes.transData + ScaledTranslation(inches, 0, figure.dpi_scale_trans)


def _by_method(answer: Compared) -> dict[str, list[ComparedPoint]]:
    """The points of each method, by what stays."""
    ordered = sorted(answer.points, key=lambda point: point.stays(answer.axis))
    names = dict.fromkeys(point.method for point in answer.points)
    return {name: [point for point in ordered if point.method == name] for name in names}


def _on_front(answer: Compared) -> list[ComparedPoint]:
    return [answer.points[number] for number in answer.pareto]


def _ringed(answer: Compared) -> str:
    """How the Pareto front is seen: of one method alone its dashed line lies under the method's own."""
    return "Ringed" if len({point.method for point in _on_front(answer)}) == 1 else "Ringed, on the dashed line"


def _scale(axes: Axes, increases: Sequence[float]) -> None:
    """A loss axis, logarithmic where losses are far apart."""
    loss_axis(axes, "added loss, nats per token")
    if min(increases) > 0 and max(increases) > FAR * min(increases):
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        low = max(low, min(increases) / BELOW)
        ticks = log_ticks(low, high, 6)
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(low, high)


def _spelled(axis: Axis, value: float) -> str:
    if axis == "share":
        return human_percent(value)
    return human_bytes(value) if axis == "weight_bytes" else human_count(value)


def _finding(answer: Compared) -> str:
    """What adds least where most is off, and whether the next method is surely worse."""
    hardest = min(answer.orders, key=lambda one: one.strength)
    best = hardest.order[0]
    (point,) = (
        one
        for one in answer.points
        if (one.part, one.method, one.target.asked) == (hardest.part, best, hardest.strength)
    )
    kept = f"With {human_percent(hardest.strength)} of the {hardest.part} kept"
    least = f"{kept}, {best} adds least: {signed(answer.increase(point).mean)} nats per token"
    if hardest.gaps and (hardest.gaps[0].low or 0) <= 0:
        return f"{least}, not surely less than {hardest.order[1]}"
    return least
