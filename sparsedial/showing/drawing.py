"""The look of all pictures: one palette, one font, room for a title that states the finding; no global state."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from io import BytesIO
from typing import Any, cast

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullLocator

from sparsedial.showing.palette import DENSE, INK, MUTED, PAGE_COLOURS, PAPER, RULE
from sparsedial.units import human_count, unbroken

_SPARSE_RAMP = ("#58a2d8", "#0b2c66")  # a sparser model is darker
_DARK_SPARSE_RAMP = ("#3f78ad", "#d8edff")  # on a dark page it is lighter

STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "figure.facecolor": PAPER,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "path",
    "svg.hashsalt": "sparsedial",
}
LOSS = "validation loss, nats per token"
WIDTH_INCHES = 9.0
NARROW_INCHES = 5.2  # for a phone, on which a point is then about a pixel
_WIDTH = ContextVar("width_inches", default=WIDTH_INCHES)
_LINE_INCHES = 0.26
_EDGE_POINTS = 3.0  # that the label of an axis stays away from the figure's edge
_BETWEEN_INCHES = 0.85  # between plots one below another


@contextmanager
def style(width_inches: float = WIDTH_INCHES) -> Iterator[None]:
    """Use the look of our pictures, and a width, inside the context; a narrow one has its plots one below another."""
    before = _WIDTH.set(width_inches)
    try:
        with matplotlib.rc_context(cast(Any, STYLE)):
            yield
    finally:
        _WIDTH.reset(before)


def sparsity_colours(experts: Sequence[int], dark: bool = False) -> dict[int, str]:
    """One colour for each number of experts: dense is orange; sparse is blue, and darker with more experts."""
    ramp = _DARK_SPARSE_RAMP if dark else _SPARSE_RAMP
    sparse = sorted(set(experts) - {0})
    shares = [index / (len(sparse) - 1) if len(sparse) > 1 else 0.75 for index in range(len(sparse))]
    colours = {count: _mix(*ramp, share) for count, share in zip(sparse, shares, strict=True)}
    return {0: PAGE_COLOURS[DENSE][2] if dark else DENSE, **colours}


def _mix(first: str, second: str, share: float) -> str:
    pairs = [(int(first[at : at + 2], 16), int(second[at : at + 2], 16)) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(start + (end - start) * share):02x}" for start, end in pairs)


def page_colours(experts: Sequence[int]) -> dict[str, tuple[str, str, str]]:
    """For each colour of the pictures: its name on the page, and its values in light and in dark mode."""
    colours = dict(PAGE_COLOURS)
    dark_colours = sparsity_colours(experts, dark=True)
    for count, colour in sparsity_colours(experts).items():
        if count:
            colours[colour] = (f"experts-{count}", colour, dark_colours[count])
    return colours


def canvas(
    title: str, subtitle: str, *, plot_inches: float, columns: int = 1, right: float = 0.25, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with a title and a subtitle, and below them `columns` plots of equal height.

    `headed` is the number of lines in the plots' own titles; `left`, `right` and `foot` are margins in inches.
    """
    width = _WIDTH.get()
    rows = columns if width < WIDTH_INCHES else 1
    title_lines = textwrap.wrap(unbroken(title), round(10.3 * width - 8.7))  # slack, since a line's letters may be wide
    subtitle_lines = textwrap.wrap(unbroken(subtitle), round(126 * width / WIDTH_INCHES))
    head = 0.2 + _LINE_INCHES * len(title_lines) + 0.2 * len(subtitle_lines) + 0.16 + 0.19 * options.pop("headed", 0)
    foot, left = options.pop("foot", 0.62), options.pop("left", 0.7)
    height = head + rows * plot_inches + (rows - 1) * _BETWEEN_INCHES + foot
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        rows,
        columns // rows,
        left=left / width,
        right=1 - right / width,
        top=1 - head / height,
        bottom=foot / height,
        wspace=options.pop("wspace", 0.28),
        hspace=_BETWEEN_INCHES / plot_inches,
        **{"height_ratios" if rows > 1 else "width_ratios": options.pop("width_ratios", None)},
    )
    axes = grid.subplots(squeeze=False, **options).flatten()
    edge = 0.12 / width
    figure.text(
        edge, 1 - 0.16 / height, "\n".join(title_lines), fontsize=13, fontweight="bold", va="top", linespacing=1.3
    )
    below = 0.2 + _LINE_INCHES * len(title_lines)
    figure.text(
        edge, 1 - below / height, "\n".join(subtitle_lines), fontsize=9.5, color=MUTED, va="top", linespacing=1.3
    )
    return figure, list(axes)


def loss_axis(axes: Axes, label: str | None) -> None:
    """A vertical loss axis with light grid lines."""
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params(length=0, axis="y")
    if label:
        axes.set_ylabel(label)


def log_axis(axes: Axes, label: str | None, spell: Callable[[float], str] = human_count, most: int = 6) -> None:
    """A horizontal logarithmic axis with few ticks, labelled by `spell`."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = log_ticks(low, high, most)
    axes.set_xticks(ticks, [spell(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(low, high)
    if label:
        axes.set_xlabel(label)


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between two positive ends: at most `most`, and at least two where possible."""
    ticks: list[float] = []
    edge = (high / low) ** 0.03  # a label this close to the end would overlap the next plot's
    low, high = low * edge, high / edge
    for mantissas in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [float(f"{mantissa}e{power}") for power in powers for mantissa in mantissas]
        found = [tick for tick in found if low <= tick <= high]
        if ticks and len(found) > most:
            break
        ticks = found[:: math.ceil(len(found) / most)] if found else ticks
        if len(ticks) >= min(3, most):
            break
    return ticks


def ring(axes: Axes, x: float, y: float, colour: str, size: float = 10, **options: Any) -> None:
    """A ring around the best point of a line."""
    style = {"markersize": size, "markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.6}
    axes.plot(x, y, "o", **style, **options)


def same_span(plots: Sequence[Axes]) -> None:
    """Give plots side by side the same vertical scale, each around its own middle."""
    limits = [axes.get_ylim() for axes in plots]
    span = max(high - low for low, high in limits)
    for axes, (low, high) in zip(plots, limits, strict=True):
        middle = (low + high) / 2
        axes.set_ylim(middle - span / 2, middle + span / 2)


def end_labels(
    axes: Axes, labels: Sequence[tuple[float, float, str, str]], least_points: float = 11.5, beside: float = 8
) -> None:
    """Write each (x, y, text, colour) so many points to the right of its point, apart where texts would overlap.

    Lines end before a text's letters, such as the one at zero where a label stands on it.
    """
    figure = axes.get_figure()
    assert figure is not None
    axes.autoscale_view()  # sets the automatic limits, on which the positions below depend
    scale = 72 / figure.dpi
    ordered = sorted(labels, key=lambda label: axes.transData.transform(label[:2])[1])
    heights = [axes.transData.transform(label[:2])[1] * scale for label in ordered]
    for (x, y, text, colour), height, wanted in zip(ordered, heights, apart(heights, least_points), strict=True):
        axes.annotate(
            text,
            (x, y),
            xytext=(beside, wanted - height),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=9,
            fontweight="bold",
            annotation_clip=False,
            path_effects=[withStroke(linewidth=4, foreground=PAPER)],
        )


def side_names(axes: Axes, names: Mapping[str, str]) -> None:
    """Names in their colours, one under the other to the right of a plot: for points that form no lines."""
    for number, (name, colour) in enumerate(names.items()):
        axes.annotate(
            name,
            (1, 1),
            (10, -1 - 14 * number),
            xycoords="axes fraction",
            textcoords="offset points",
            va="top",
            color=colour,
            fontweight="bold",
            annotation_clip=False,
        )


def apart(heights: Sequence[float], least: float) -> list[float]:
    """The heights, in order, moved apart in small passes until neighbours are `least` apart."""
    moved = list(heights)
    for _ in range(200):
        pushed = False
        for low in range(len(moved) - 1):
            missing = least - (moved[low + 1] - moved[low])
            if missing > 1e-6:
                moved[low] -= missing / 2
                moved[low + 1] += missing / 2
                pushed = True
        if not pushed:
            break
    return moved


def png(figure: Figure) -> bytes:
    """The picture as PNG."""
    return _saved(figure, format="png", dpi=180, metadata={"Software": None})


def svg(figure: Figure) -> bytes:
    """The picture as SVG; the same figure always gives the same bytes."""
    return _saved(figure, format="svg", metadata={"Date": None, "Creator": None})


def _make_room(figure: Figure) -> None:
    """Move the plots to the right where wide numbers on an axis would push its label out of the figure."""
    boxes = [axes.yaxis.get_tightbbox() for axes in figure.axes if axes.get_ylabel()]
    width = figure.get_window_extent().width
    missing = _EDGE_POINTS * figure.dpi / 72 - min((box.x0 for box in boxes if box is not None), default=width)
    if missing > 0:
        places = [axes.get_position() for axes in figure.axes]
        left = min(place.x0 for place in places)
        shrunk = 1 - missing / width / (1 - left)
        for axes, place in zip(figure.axes, places, strict=True):
            axes.set_position((1 - (1 - place.x0) * shrunk, place.y0, place.width * shrunk, place.height))


def _saved(figure: Figure, **options: Any) -> bytes:
    buffer = BytesIO()
    with style():
        _make_room(figure)
        figure.savefig(buffer, **options)
    return buffer.getvalue()


def svg_for_page(picture: bytes, name: str, description: str, colours: Mapping[str, tuple[str, str, str]]) -> str:
    """An SVG for use inside a page: unique ids, the page's colours, and a description for screen readers."""
    text = picture.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, (variable, _, _) in colours.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]+")[^>]*>', r"<svg \1>", text, count=1, flags=re.DOTALL)
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return text.replace("<svg ", f'<svg {names} role="img" aria-label="{label}" ', 1)
