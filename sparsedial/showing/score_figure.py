"""The picture of scores on tasks: each checkpoint's score with its interval, beside what guessing gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparsedial.errors import needs
from sparsedial.records.evaluation import Evaluation, Evaluations, TaskScore
from sparsedial.showing.scores import each, is_share, scores_page
from sparsedial.showing.settings_scores import names
from sparsedial.showing.words import listing
from sparsedial.store import write_atomically

with needs("matplotlib", "evaluate"):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    from sparsedial.showing.drawing import INK, MUTED, canvas, png, style
    from sparsedial.showing.palette import COLOURS

PAGE, PICTURE = "scores.md", "scores.png"
ROW_INCHES, LINE_INCHES = 0.2, 0.17  # of a task, and of each checkpoint in it


def write_scores(answer: Evaluation | Evaluations, folder: Path) -> None:
    """Write the scores as a page of Markdown and a picture.

    Raises: UserError where they cannot be written.
    """
    figure = scores(answer)
    if figure is not None:
        write_atomically(folder / PICTURE, png(figure))
    write_atomically(folder / PAGE, scores_page(answer, None if figure is None else PICTURE).encode())


def scores(answer: Evaluation | Evaluations) -> Figure | None:
    """The share of items that each checkpoint gets right; None where no task has such a share."""
    results = each(answer)
    drawn = [name for name in results[0].tasks or {} if all(_drawable(one, name) for one in results)]
    if not drawn:
        return None
    with style():
        figure, (axes,) = canvas(
            _finding(results, drawn),
            "Share of the items that are right, with its 95 % interval; | is what guessing gives",
            plot_inches=0.25 + len(drawn) * (ROW_INCHES + LINE_INCHES * len(results)),
            left=0.25 + 0.085 * max(map(len, drawn)),
            right=0.35,
            foot=0.62 + (0.2 * len(results) if len(results) > 1 else 0),
        )
        _draw(axes, results, drawn)
    return figure


def _drawable(one: Evaluation, name: str) -> bool:
    score = _of(one, name)
    return is_share(score.primary, score.metrics[score.primary])


def _of(one: Evaluation, name: str) -> TaskScore:
    assert one.tasks is not None
    return one.tasks[name]


def _draw(axes: Axes, results: Sequence[Evaluation], drawn: Sequence[str]) -> None:
    step = 0.6 / len(results)
    for row, name in enumerate(drawn):
        for number, one in enumerate(results):
            score = _of(one, name)
            value, height = score.metrics[score.primary], row + (number - (len(results) - 1) / 2) * step
            colour = COLOURS[number % len(COLOURS)]
            if value.low is not None and value.high is not None:
                axes.plot([value.low, value.high], [height, height], color=colour, linewidth=4, alpha=0.35)
            axes.plot(value.mean, height, "o", color=colour, markersize=6)
        chance = _of(results[0], name).chance
        if chance is not None:
            axes.plot([chance, chance], [row - 0.4, row + 0.4], color=INK, linewidth=1.4)
    axes.set_yticks(range(len(drawn)), drawn, color=INK)
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.tick_params(length=0, axis="y")
    axes.grid(axis="x")
    axes.spines.left.set_visible(False)
    if len(results) > 1:
        for number, name in enumerate(_short_names(results)):
            axes.annotate(
                f"● {name}",
                (0, 0),
                xycoords="axes fraction",
                xytext=(0, -32 - 14 * number),
                textcoords="offset points",
                color=COLOURS[number % len(COLOURS)],
                fontweight="bold",
                fontsize=9,
            )
    else:
        axes.set_xlabel(names(results)[0], color=MUTED)


def _short_names(results: Sequence[Evaluation]) -> list[str]:
    """What tells answers apart, without the folders that all of them are in."""
    parts = [Path(name).parts for name in names(results)]
    shared = next((at for at, folders in enumerate(zip(*parts, strict=False)) if len(set(folders)) > 1), 0)
    return [str(Path(*folders[shared:])) for folders in parts]


def _finding(results: Sequence[Evaluation], drawn: Sequence[str]) -> str:
    """Which tasks are answered better than by guessing."""
    guessable = [name for name in drawn if _of(results[0], name).at_chance is not None]
    better = [name for name in guessable if any(_of(one, name).at_chance is False for one in results)]
    by_all = [name for name in better if not any(_of(one, name).at_chance for one in results)]
    if not guessable:
        return "Answers that are right, by task"
    if len(by_all) == len(guessable):
        return "All tasks with choices are answered better than by guessing"
    if not better:
        return "No task is answered better than by guessing"
    by_some = "" if by_all == better else " by one or more of the models"
    return f"Answered better than by guessing{by_some}: {listing(better)}"
