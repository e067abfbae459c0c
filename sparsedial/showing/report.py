"""The report of a study: one self-contained page, and its pictures as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sparsedial.records.study import Study
from sparsedial.records.verdict import Side
from sparsedial.showing.best_words import best_headline, best_sentences, lead_sentences, next_sentence
from sparsedial.showing.drawing import NARROW_INCHES, page_colours, png, style, svg, svg_for_page
from sparsedial.showing.figures import FIGURES
from sparsedial.showing.glossary import GLOSSARY
from sparsedial.showing.numbers import NONE, count_words, loss_number, with_interval
from sparsedial.showing.page import (
    bullets,
    command,
    definitions,
    folded,
    for_screens,
    heading,
    page,
    paragraph,
    pictures,
    table,
)
from sparsedial.showing.report_kept import kept_section
from sparsedial.showing.report_probes import probes_section
from sparsedial.showing.report_tables import everything, text_and_machine
from sparsedial.showing.report_trust import trust
from sparsedial.showing.rows import budgets, experts_tried
from sparsedial.showing.words import (
    CURRENCIES,
    cost,
    crossover_sentence,
    held_equal,
    listing,
    metered,
    near_optimal_sentence,
    power_of_ten,
    shape_words,
    share_sentence,
)
from sparsedial.store import write_atomically
from sparsedial.units import OPTIMIZERS, human_bytes, human_percent, human_seconds


def write_report(study: Study, folder: Path) -> Path:
    """Write `report.html` and `figures/*.png`, `*.svg` into a study's folder; pictures without data are left out.

    Raises: UserError where the folder cannot be written.
    """
    drawn = draw(study, folder / "figures")
    path = folder / "report.html"
    write_atomically(path, compose(study, drawn).encode())
    return path


def draw(study: Study, folder: Path) -> dict[str, str]:
    """Write every picture that has data; returns them by name, ready for the page."""
    colours = page_colours(experts_tried(study))
    drawn = {}
    for name, make in FIGURES.items():
        with style():
            figure = make(study)
        if figure is None:
            for ending in ("png", "svg"):
                (folder / f"{name}.{ending}").unlink(missing_ok=True)  # left by an earlier report
            continue
        vector = svg(figure)
        write_atomically(folder / f"{name}.png", png(figure))
        write_atomically(folder / f"{name}.svg", vector)
        said = figure.texts[0].get_text().replace("\n", " ")
        with style(NARROW_INCHES):
            narrow = make(study)
        assert narrow is not None
        drawn[name] = for_screens(
            svg_for_page(vector, name, said, colours), svg_for_page(svg(narrow), f"{name}-narrow", said, colours)
        )
    return drawn


def compose(study: Study, drawn: Mapping[str, str]) -> str:
    """The whole page, from a record and its drawn pictures."""
    sections = [
        _opening(study, drawn),
        _verdicts(study),
        _optimum(study, drawn),
        _cost(study, drawn),
        *([probes_section(study, study.probes, drawn)] if study.probes else []),
        *([kept_section(study.selection, drawn)] if study.selection else []),
        trust(study, drawn),
        text_and_machine(study),
        everything(study),
    ]
    return page(f"Sparsedial: {best_headline(study)}", "\n".join(sections), page_colours(experts_tried(study)))


def _opening(study: Study, drawn: Mapping[str, str]) -> str:
    """The answer: the best sparsity, sparse against dense, and what to do next."""
    return "\n".join(
        [
            heading(best_headline(study), 1),
            paragraph(_kicker(study), "kicker"),
            paragraph(share_sentence(study.token_selection)),
            paragraph(" ".join(best_sentences(study))),
            bullets(lead_sentences(study)),
            paragraph(next_sentence(study)),
            command(study.next),
            pictures(drawn, "verdict"),
            folded("What the words mean", definitions(GLOSSARY)),
        ]
    )


def _kicker(study: Study) -> str:
    text, cells = study.text, study.cells
    return (
        f"Sparsedial study: {cells.finished} models of {len(experts_tried(study))} sparsities"
        f" at {len(budgets(study))} budgets, trained on {human_bytes(text.bytes)} of text"
        f" in {human_seconds(study.wall_seconds)}"
    )


def _verdicts(study: Study) -> str:
    parts = [heading("The two models of each verdict"), *_tried(study)]
    for name, currency in CURRENCIES.items():
        verdict = study.verdict.of(name)
        sides = {side: found for side, found in (("sparse", verdict.sparse), ("dense", verdict.dense)) if found}
        if name == "joules" and not metered(study.verdict):
            continue
        parts.append(heading(f"At equal {currency}", 3))
        if not sides:
            parts.append(paragraph(f"Nothing was compared: {verdict.reason}.", "quiet"))
            continue
        parts += [
            paragraph(held_equal(study.verdict, name, optimizer=bool(study.other_learning_rates))),
            _sides(sides, name),
        ]
    return "\n".join(parts)


def _tried(study: Study) -> list[str]:
    if not study.other_learning_rates:
        return []
    tried = listing([OPTIMIZERS[rates.optimizer] for rates in (study.learning_rates, *study.other_learning_rates)])
    grid = OPTIMIZERS[study.learning_rates.optimizer]
    words = f"Each model was tried with {tried}, and sent with the better one; the grid and the law are of {grid}."
    return [paragraph(words)]


def _sides(sides: Mapping[str, Side], currency: str) -> str:
    lines = {
        "model": shape_words,
        "optimizer": lambda side: OPTIMIZERS[side.optimizer],
        "active parameters": lambda side: count_words(side.active_parameters),
        "total parameters": lambda side: count_words(side.total_parameters),
        "training tokens": lambda side: count_words(side.tokens),
        "test loss, nats per token": lambda side: with_interval(side.loss),
        "test bits per byte": lambda side: loss_number(side.bits_per_byte),
        "training FLOPs": lambda side: power_of_ten(side.flops) if side.flops else NONE,
        # at equal FLOPs the runs share the machine, so their seconds mean nothing
        **({"training seconds": lambda side: cost("seconds", side.seconds)} if currency != "flops" else {}),
        **({"joules": lambda side: cost("joules", side.joules)} if currency == "joules" else {}),
        "sent to the verdict": lambda side: side.sent_because or NONE,
        "checkpoint": lambda side: side.checkpoint or NONE,
    }
    return table(
        ["", *sides], [[name, *(text_of(side) for side in sides.values())] for name, text_of in lines.items()], "words"
    )


def _optimum(study: Study, drawn: Mapping[str, str]) -> str:
    return "\n".join(
        [
            heading("Where the optimum is, and how wide it is"),
            paragraph(near_optimal_sentence(study)),
            paragraph(crossover_sentence(study)),
            paragraph(_bounds_words(study)),
            bullets(study.binding_constraints),
            pictures(drawn, "sparsity", "active_size", "advantage"),
        ]
    )


def _bounds_words(study: Study) -> str | None:
    if study.binding_constraints:
        return "The answer is limited by these bounds, so a wider search may find a better one:"
    decided = any(study.verdict.of(name).winner != "undecided" for name in CURRENCIES)
    return "The answer is not limited by a bound: it lies inside the searched ranges." if decided else None


def _cost(study: Study, drawn: Mapping[str, str]) -> str:
    return "\n".join(
        [
            heading("What it costs in time and energy"),
            paragraph(_seconds_words(study)),
            paragraph(_joules_words(study)),
            pictures(drawn, "seconds", "joules", "training_curves"),
            _profile(study),
        ]
    )


def _seconds_words(study: Study) -> str:
    timed = study.verdict.seconds.sparse or study.verdict.seconds.dense
    turns = (
        " The verdict's timed runs were alone on the machine, sparse and dense in turns with the same number of"
        " threads, so that other load affected both alike."
    )
    return (
        "Seconds are the total wall time of training steps, without start, evaluation and saving."
        f"{turns if timed else ''}"
        " Cells of the grid shared the machine: their seconds show the trend and decide nothing."
    )


def _joules_words(study: Study) -> str | None:
    """Why joules have no verdict and no picture of their own; None where a meter was read."""
    if metered(study.verdict):
        return None
    if study.profile.metered and study.verdict.joules.gap is None:
        return f"At equal joules nothing was compared: {study.verdict.joules.reason}."
    return (
        f"Energy is estimated, as seconds times a constant: {study.profile.watts_source}."
        " So joules have no verdict and no picture of their own."
    )


def _profile(study: Study) -> str:
    profile = study.profile
    return paragraph(
        "The machine's profile predicts the seconds of a step within"
        f" {human_percent(profile.median_relative_error)} in the median and"
        f" {human_percent(profile.max_relative_error)} at worst, on shapes left out of its fit."
    )
