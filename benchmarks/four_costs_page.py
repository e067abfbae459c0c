"""What `four_costs` recorded, as a picture and a sentence for the README and docs/turning-off.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from benchmarks.prune_findings_page import NOT_MEASURED
from sparsedial.showing.drawing import canvas, style, svg
from sparsedial.showing.palette import COLOURS, INK, MUTED, PAPER
from sparsedial.units import human_bytes, human_count, human_joules, human_percent, signed

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benchmarks" / "records" / "four_costs.json"
FIGURE = ROOT / "docs" / "figures" / "four_costs.svg"
NAMES = {
    "smollm2": "SmolLM2-135M-Instruct",
    "sparse": "Trained here on two kinds of text",
    "study": "Planned by the study of the first command",
}
PARTS = {"whole": MUTED, "layers": COLOURS[0], "neurons": COLOURS[1], "experts": COLOURS[2], "weights": COLOURS[3]}
PARTS |= {"dial": COLOURS[4]}
NAMES_INCHES, BAR, LABEL = 1.75, 0.62, 0.5
WHOLE, HALF, LOWER_K = "whole", "reap 50 %", "k=3"  # names of ways
ZEROS, FEWER_LAYERS = "wanda 50 %", "block-influence 75 %"


@dataclass(frozen=True)
class Cost:
    """One of the four: what it is called, its value of a way, and how that is written."""

    title: str
    value: Callable[[Mapping[str, Any]], float]
    words: Callable[[float], str]
    at_random: Callable[[Mapping[str, Any]], float | None] = lambda way: None  # that of random choices of as much


COSTS = (
    Cost(
        "quality: loss added,\nnats per token",
        lambda way: (way["loss_increase"] or {"mean": 0.0})["mean"],
        signed,
        lambda way: way["control_loss_increase"],
    ),
    Cost("speed: tokens per\nsecond, written", lambda way: way["decode_tokens_per_second"]["median"], human_count),
    Cost("memory and disk:\nbytes of the weights", lambda way: way["weight_bytes"], human_bytes),
    Cost("energy of 100\nwritten tokens", lambda way: 100 * way["joules_per_token"]["joules"], human_joules),
)


def costs_block(folder: str = "docs/figures") -> str:
    """The picture, as a page shows it that names its folder so."""
    if not RECORD.exists():
        return NOT_MEASURED
    return f"![Loss, speed, memory and energy before and after]({folder}/{FIGURE.name})"


def scatter_sentences() -> str:
    """By how much a checkpoint seems faster that is not, and what the score of the small model's layers is worth."""
    dense, sparse = ({way["name"]: way for way in _models()[name]["ways"]} for name in ("smollm2", "sparse"))
    rates = [dense[name]["decode_tokens_per_second"]["median"] for name in (WHOLE, ZEROS)]
    layers = sparse[FEWER_LAYERS]
    return (
        f"Half of the weights by Wanda removes nothing physically. It decodes {rates[1] / rates[0]:.2f} times as fast:"
        " that is the scatter of such a measurement between folders, so smaller differences say nothing. Of the four"
        " layers of the model of 64 experts none is idle: its loss grows as much where the score chooses the layer"
        f" ({layers['loss_increase']['mean']:.3f}) as where chance does ({layers['control_loss_increase']:.3f})."
    )


def _models(record: Path = RECORD) -> dict[str, dict[str, Any]]:
    return json.loads(record.read_text())["models"]


def picture(record: Path = RECORD) -> bytes:
    """The four costs of each checkpoint, whole and after each cut, as SVG."""
    found = _models(record)
    rows = [len(model["ways"]) for model in found.values()]
    with style():
        figure, (space,) = canvas(
            finding(found["sparse"]["ways"]),
            f"Names say how much stays, chosen by {_methods(found.values())}. A thin line marks random choices of as"
            " much, an arrow those beyond. Loss is on windows that took no part in the choice, without training"
            " afterwards. Speed and energy: one sequence, two CPU cores",
            plot_inches=0.34 * sum(rows) + 0.5,
            left=NAMES_INCHES,
            right=0.3,
            foot=0.1,
            headed=3,
        )
        space.axis("off")
        whole = space.get_subplotspec()
        assert whole is not None
        grid = whole.subgridspec(len(rows), 4, height_ratios=rows, hspace=0.3, wspace=0.35)
        for number, (name, model) in enumerate(found.items()):
            plots = [figure.add_subplot(grid[number, column]) for column in range(4)]
            for axes, cost in zip(plots, COSTS, strict=True):
                _bars(axes, model["ways"], cost, titled=number == 0)
            _named(plots[0], model["ways"], f"{NAMES[name]}: {model['what']}")
    return svg(figure)


def _methods(models: Iterable[Mapping[str, Any]]) -> str:
    """The method of each part that is turned off: `block-influence (layers), wanda (weights)`."""
    ways = [way for model in models for way in model["ways"] if way["loss_increase"] and way["part"] != "dial"]
    return ", ".join(dict.fromkeys(f"{way['name'].split()[0]} ({way['part']})" for way in ways))


def _label(way: Mapping[str, Any]) -> str:
    """`layers 90 %`; a setting of the dial, and the whole model, by their own names."""
    _, _, stays = way["name"].partition(" ")
    return f"{way['part']} {stays}" if stays else way["name"]


def finding(ways: Sequence[Mapping[str, Any]]) -> str:
    """What half of the experts and half of a token's experts save and cost."""
    whole, fewer, lower = (next(way for way in ways if way["name"] == name) for name in (WHOLE, HALF, LOWER_K))
    quality, speed, memory, _ = COSTS
    saved = 1 - memory.value(fewer) / memory.value(whole)
    faster = speed.value(lower) / speed.value(whole)
    return (
        f"Half of the experts off saves {human_percent(saved)} of the memory and adds {quality.value(fewer):.3f} nats;"
        f" half as many for each token makes it {faster:.1f} times as fast and adds {quality.value(lower):.3f}"
    )


def _bars(axes: Axes, ways: Sequence[Mapping[str, Any]], cost: Cost, *, titled: bool) -> None:
    """A bar for each way, the first on top, with its value behind it; intervals and random choices of added loss."""
    values = [cost.value(way) for way in ways]
    axes.barh(range(len(ways)), values, BAR, color=[PARTS[way["part"]] for way in ways])
    axes.axvline(values[0], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)), zorder=0)
    at_random = [cost.at_random(way) for way in ways]
    known = [value for value in at_random if value is not None]
    most = 2 * max(values) if known else 1.02 * max(values)
    for row, (value, drawn) in enumerate(zip(values, at_random, strict=True)):
        inside = value > 0.5 * most
        if drawn is not None and drawn <= most:
            axes.plot([drawn, drawn], [row - BAR / 2, row + BAR / 2], color=MUTED, linewidth=1.6)
        elif drawn is not None:
            axes.annotate(
                f"→ +{drawn:.1f}", (1.31, row), xycoords=("axes fraction", "data"), ha="right", va="center",
                fontsize=8.5, color=MUTED, annotation_clip=False,
            )  # fmt: skip
        hidden = drawn is not None and value < drawn < value + LABEL * most  # the label would lie on the line
        axes.annotate(
            cost.words(value) if value else "0", (drawn if hidden else value, row), (-5 if inside else 5, 0),
            textcoords="offset points", ha="right" if inside else "left", va="center", fontsize=8.5,
            color=PAPER if inside else INK, annotation_clip=False,
        )  # fmt: skip
    axes.set_xlim(min(0, *values), most)
    axes.set_ylim(len(ways) - 0.4, -0.6)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["bottom", "left"]].set_visible(False)
    if titled:
        axes.set_title(cost.title, fontsize=9, color=MUTED, pad=24, loc="left")


def _named(axes: Axes, ways: Sequence[Mapping[str, Any]], model: str) -> None:
    """The ways' names to the left of a model's bars, and the model's above them."""
    for row, way in enumerate(ways):
        axes.annotate(
            _label(way), (0, row), (-6, 0), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
            va="center", fontsize=9, color=PARTS[way["part"]], fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    axes.annotate(
        model, (0, 1), (-72 * (NAMES_INCHES - 0.12), 6), xycoords="axes fraction", textcoords="offset points",
        va="bottom", fontsize=10, fontweight="bold", color=INK, annotation_clip=False,
    )  # fmt: skip
