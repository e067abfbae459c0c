"""The report of a study: one page that a colleague can read alone, and its pictures as files."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsedial.showing.drawing import page_colours, png, style, svg, svg_for_page
from sparsedial.showing.figures import FIGURES
from sparsedial.showing.page import bullets, command, folded, heading, page, paragraph, picture, table
from sparsedial.showing.words import (
    CURRENCIES,
    Row,
    best_sparsity,
    budgets,
    cost,
    crossover_sentence,
    experts_tried,
    finished,
    headline,
    held_equal,
    law_sentence,
    line_of,
    listing,
    metered,
    near_optimal_sentence,
    open_side,
    overlap_sentence,
    percent,
    power_of_ten,
    seed_spread,
    shape_words,
    sparsity_name,
    text_sentence,
    verdict_sentence,
)
from sparsedial.store import write_atomically
from sparsedial.units import human_bytes, human_count, human_seconds

NONE = "–"


def write_report(study: Mapping[str, Any], folder: Path) -> Path:
    """Write `report.html` and `figures/*.png`, `*.svg` into a study's folder; pictures with nothing to show stay out.

    Raises: UserError where the folder cannot be written.
    """
    drawn = draw(study, folder / "figures")
    path = folder / "report.html"
    write_atomically(path, compose(study, drawn).encode())
    return path


def draw(study: Row, folder: Path) -> dict[str, str]:
    """Write every picture that has something to show; the same ones by name, ready for the page."""
    colours = page_colours(experts_tried(study))
    drawn = {}
    for name, make in FIGURES.items():
        with style():
            figure = make(study)
        if figure is None:
            for ending in ("png", "svg"):
                (folder / f"{name}.{ending}").unlink(missing_ok=True)  # of an earlier report on fewer cells
            continue
        vector = svg(figure)
        write_atomically(folder / f"{name}.png", png(figure))
        write_atomically(folder / f"{name}.svg", vector)
        drawn[name] = svg_for_page(vector, name, figure.texts[0].get_text().replace("\n", " "), colours)
    return drawn


def compose(study: Row, drawn: Mapping[str, str]) -> str:
    """The whole page from a record and its drawn pictures."""
    sections = [
        _opening(study, drawn),
        _verdicts(study),
        _optimum(study, drawn),
        _cost(study, drawn),
        _trust(study, drawn),
        _setting(study),
        _everything(study),
    ]
    return page(f"Sparsedial: {headline(study)}", "\n".join(sections), page_colours(experts_tried(study)))


def _pictures(drawn: Mapping[str, str], *names: str) -> str:
    return "\n".join(picture(drawn[name]) for name in names if name in drawn)


def _opening(study: Row, drawn: Mapping[str, str]) -> str:
    text, cells = study["text"], study["cells"]
    kicker = (
        f"Sparsedial study: {cells['finished']} models of {len(experts_tried(study))} sparsities"
        f" at {len(budgets(study))} budgets, trained on {human_bytes(text['bytes'])} of text"
        f" in {human_seconds(study['wall_seconds'])}"
    )
    return "\n".join(
        [
            paragraph(kicker, "kicker"),
            heading(headline(study), 1),
            bullets([verdict_sentence(study, name) for name in CURRENCIES if name != "joules" or metered(study)]),
            paragraph(None if metered(study) else _joules_line(study)),
            _pictures(drawn, "verdict"),
            heading("What to do next", 3),
            paragraph("To ask the same of a bigger budget:" if study["next"] else None),
            command(study["next"]),
        ]
    )


def _joules_line(study: Row) -> str:
    verdict, profile = study["verdict"]["joules"], study["profile"] or {}
    if verdict["basis"] == "measured":
        return f"At equal joules nothing is decided: {verdict['reason']}."
    watts = profile.get("watts")
    power = f"power is taken as {watts:g} W ({profile.get('watts_source')})" if watts else verdict["reason"]
    return (
        "At equal joules the finding is that of equal seconds times a constant:"
        f" no energy meter is readable here, and {power}."
    )


def _verdicts(study: Row) -> str:
    parts = [heading("The two models of each verdict")]
    for name, currency in CURRENCIES.items():
        verdict = study["verdict"][name]
        sides = {side: verdict[side] for side in ("sparse", "dense") if verdict[side]}
        if name == "joules" and not metered(study):
            continue
        parts.append(heading(f"At equal {currency}", 3))
        if not sides:
            parts.append(paragraph(f"No pair was trained to the end: {verdict['reason']}.", "quiet"))
            continue
        parts += [paragraph(held_equal(study, name)), _sides(sides, name)]
    return "\n".join(parts)


def _sides(sides: Mapping[str, Row], currency: str) -> str:
    lines = {
        "model": shape_words,
        "active parameters": lambda side: _count(side.get("active_parameters")),
        "total parameters": lambda side: _count(side.get("total_parameters")),
        "training tokens": lambda side: _count(side["tokens"]),
        "test loss, nats per token": lambda side: _with_interval(side["loss"]),
        "test bits per byte": lambda side: _number(side["bits_per_byte"]),
        "training FLOPs": lambda side: power_of_ten(side["flops"]) if side["flops"] else NONE,
        # at equal FLOPs the runs share the machine, so their seconds say nothing
        **({"training seconds": lambda side: cost("seconds", side["seconds"])} if currency != "flops" else {}),
        **({"joules": lambda side: cost("joules", side["joules"])} if currency == "joules" else {}),
        "checkpoint": lambda side: side["checkpoint"] or NONE,
    }
    return table(
        ["", *sides], [[name, *(tell(side) for side in sides.values())] for name, tell in lines.items()], "words"
    )


def _optimum(study: Row, drawn: Mapping[str, str]) -> str:
    bounds = study["binding_constraints"]
    return "\n".join(
        [
            heading("Where the optimum lies, and how wide it is"),
            paragraph(near_optimal_sentence(study)),
            paragraph(crossover_sentence(study)),
            paragraph(_bounds_words(study)),
            bullets(
                [
                    bound if isinstance(bound, str) else listing([f"{k}: {v}" for k, v in bound.items()])
                    for bound in bounds
                ]
            ),
            _pictures(drawn, "sparsity", "active_size", "advantage"),
        ]
    )


def _bounds_words(study: Row) -> str | None:
    if study["binding_constraints"]:
        return "The answer sits on these bounds, so a wider search may find better:"
    decided = any(verdict["winner"] != "undecided" for verdict in study["verdict"].values())
    return "The answer sits on no bound: it lies inside everything that was searched." if decided else None


def _cost(study: Row, drawn: Mapping[str, str]) -> str:
    return "\n".join(
        [
            heading("What it costs in time and energy"),
            paragraph(_seconds_words(study)),
            paragraph(
                None
                if metered(study)
                else "Without a readable meter there is no picture against joules:"
                " it would be the one against seconds with another scale."
            ),
            _pictures(drawn, "seconds", "joules", "training_curves"),
            _profile(study),
        ]
    )


def _seconds_words(study: Row) -> str:
    threads = {row["threads"] for row in study["verdict_runs"] or [] if row.get("threads")}
    counted = (
        f" with {listing([str(count) for count in sorted(threads)])} thread(s)"
        if threads
        else " at one number of threads"
    )
    return (
        "Seconds are the summed wall time of training steps; start, evaluation and saving are left out."
        f" The verdict's timed runs had the machine to themselves, sparse and dense in turn{counted},"
        " so that whatever else the machine did fell on both."
        " Cells of the grid ran beside each other: their seconds show the trend and decide nothing."
    )


def _profile(study: Row) -> str:
    profile = study["profile"]
    if not profile:
        return paragraph("This machine's profile is not part of the record.", "quiet")
    error = None
    if profile["median_relative_error"] is not None:
        error = (
            "The machine's profile predicts the seconds of a step within"
            f" {percent(profile['median_relative_error'])} in the median and {percent(profile['max_relative_error'])}"
            " at worst, on shapes left out of its fit."
        )
    tax = profile.get("tax") or []
    measured = table(_columns(tax), [[_plain(row.get(key)) for key in tax[0]] for row in tax]) if tax else ""
    return paragraph(error) + (folded("A sparse step against its dense twin of equal FLOPs", measured) if tax else "")


def _columns(rows: list[Row]) -> list[str]:
    return [key.replace("_", " ") for key in rows[0]]


def _trust(study: Row, drawn: Mapping[str, str]) -> str:
    return "\n".join(
        [
            heading("How far to trust it"),
            bullets([*_seeds(study), *_gaps_in_grid(study), *_rates(study), *_refusals(study)]),
            paragraph(law_sentence(study)),
            _pictures(drawn, "held_out", "law"),
            _coefficients(study),
            _pictures(drawn, "learning_rates", "expert_load"),
        ]
    )


def _seeds(study: Row) -> list[str]:
    counts = {name: study["verdict"][name]["seeds"] for name in ("flops", "seconds")}
    words = (
        f"Seeds: {counts['flops']} in each family at equal FLOPs, {counts['seconds']} at equal seconds,"
        " none of them used by the grid."
    )
    spread = seed_spread(study)
    most = max((len(row.get("seed_losses") or [0]) for row in study["cells_table"]), default=1)
    runs = "one run with one seed" if most == 1 else f"the mean of {most} seeds at the lowest budget, of fewer above it"
    grid = f" Each cell of the grid is {runs}" + (
        f"; between seeds the loss varies by {spread:.4f} nats (one standard deviation)." if spread is not None else "."
    )
    return [words + grid]


def _gaps_in_grid(study: Row) -> list[str]:
    diverged = [row for row in study["cells_table"] if row["status"] == "diverged"]
    said = f"Cells that diverged: {len(diverged)}" + (", kept in the table with the reason." if diverged else ".")
    open_lines = []
    for experts in experts_tried(study):
        for budget in budgets(study):
            side = open_side(study, budget, experts) if line_of(study, budget, experts) else None
            if side:
                open_lines.append(f"{sparsity_name(experts)} at {power_of_ten(budget)} FLOPs ({side})")
    bracketed = (
        "At every budget each sparsity's best size lies between two that did worse."
        if not open_lines
        else f"Not bracketed, so the best size may lie beyond what was tried: {listing(open_lines)}."
    )
    return [said, bracketed]


def _rates(study: Row) -> list[str]:
    distances = [
        abs(row["learning_rate_optimum_distance"])
        for row in finished(study)
        if row.get("learning_rate_optimum_distance") is not None
    ]
    if not distances:
        return []
    return [
        f"Learning rates: the median cell was trained within a factor {2 ** statistics.median(distances):.2f}"
        f" of the modelled optimum, the furthest within {2 ** max(distances):.2f}."
    ]


def _refusals(study: Row) -> list[str]:
    refusals = []
    if study["law"]["refused"]:
        refusals.append(f"The law refused: {study['law']['refused']}.")
    refusals += [
        f"No verdict at equal {CURRENCIES[name]}: {study['verdict'][name]['reason']}."
        for name in CURRENCIES
        if study["verdict"][name]["winner"] == "undecided" and (name != "joules" or metered(study))
    ]
    return refusals or ["Nothing was refused."]


def _coefficients(study: Row) -> str:
    law = study["law"]
    if not law["coefficients"]:
        return ""
    intervals, undetermined = law["intervals"] or {}, law.get("undetermined") or []
    rows = [
        [
            name,
            f"{value:.4g}",
            " to ".join(f"{end:.4g}" for end in intervals[name]) if intervals.get(name) else NONE,
            "no" if name in undetermined else "yes",
        ]
        for name, value in law["coefficients"].items()
    ]
    confidence = f"{percent(law['confidence'])} interval" if law["confidence"] else "interval"
    open_ones = f"Coefficients that these data leave open: {listing(undetermined)}." if undetermined else ""
    return paragraph(open_ones) + folded(
        f"The law's coefficients ({law['form']})", table(["coefficient", "value", confidence, "determined"], rows)
    )


def _setting(study: Row) -> str:
    versions = [[name, str(value)] for name, value in study["versions"].items()]
    phases = [
        [phase["name"], human_seconds(phase["seconds"])]
        for phase in study.get("phases") or []
        if phase["seconds"] is not None
    ]
    return "\n".join(
        [
            heading("Text and machine"),
            paragraph(text_sentence(study)),
            paragraph(_repeats(study)),
            paragraph(overlap_sentence(study)),
            table(
                ["machine", ""],
                [[_fact_name(key), _fact(key, value)] for key, value in study["machine"].items()],
                "words",
            ),
            folded("Versions", table(["", "version"], versions, "words")),
            folded("Where the time went", table(["phase", "time"], phases)) if phases else "",
        ]
    )


def _repeats(study: Row) -> str | None:
    repeats = [row["repeats"] for row in study["cells_table"] if row.get("repeats")]
    return f"The longest training run of the grid reads {max(repeats):.2g} times its text." if repeats else None


def _fact_name(key: str) -> str:
    return key.removesuffix("_bytes").removesuffix("_share").replace("_", " ")


def _fact(key: str, value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_fact(name, item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_fact(key, item) for item in value) or "none"
    if isinstance(value, str):
        return value
    if key.endswith("_bytes"):
        return human_bytes(value)
    if key.endswith(("_share", "busy")):
        return f"{value:.0%}"
    return f"{value:g}"


def _everything(study: Row) -> str:
    heads = [
        "budget",
        "model",
        "width",
        "active",
        "total",
        "tokens",
        "loss",
        "predicted",
        "bits per byte",
        "seconds",
        "learning rate",
        "status",
        "run",
    ]
    rows = sorted(study["cells_table"], key=lambda row: (row["budget_flops"], row["experts"], row["active_parameters"]))
    lines = [_cell(row) for row in rows]
    best = [best_sparsity(study, budget) for budget in budgets(study)]
    summary = table(
        ["budget", "best cell", "loss"],
        [
            [
                f"{power_of_ten(row['budget_flops'])} FLOPs",
                f"{sparsity_name(row['experts'])}, width {row['d_model']}",
                f"{row['loss']:.4f}",
            ]
            for row in best
        ],
    )
    return "\n".join(
        [heading("All cells"), summary, folded(f"The table of all {len(lines)} cells", table(heads, lines))]
    )


def _cell(row: Row) -> list[str]:
    predicted = NONE
    if row["predicted_loss"] is not None:
        predicted = _with_interval(
            {"mean": row["predicted_loss"], "low": row["predicted_low"], "high": row["predicted_high"]}
        )
    return [
        power_of_ten(row["budget_flops"]),
        sparsity_name(row["experts"]),
        str(row["d_model"]),
        _count(row["active_parameters"]),
        _count(row["total_parameters"]),
        _count(row["tokens"]),
        _number(row["loss"]),
        predicted,
        _number(row["bits_per_byte"]),
        cost("seconds", row["seconds"]),
        f"{row['learning_rate']:.3g}",
        row["status"] if not row["reason"] else f"{row['status']}: {row['reason']}",
        str(row["hash"])[:10],
    ]


def _count(value: float | None) -> str:
    return NONE if value is None else human_count(value)


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.4f}"


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else NONE if value is None else str(value)


def _with_interval(loss: Row) -> str:
    if loss["low"] is None or loss["high"] is None:
        return _number(loss["mean"])
    return f"{loss['mean']:.4f} ({loss['low']:.4f} to {loss['high']:.4f})"
