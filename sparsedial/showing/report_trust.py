"""The part of the report that says how far to trust it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from sparsedial.records.grid import LearningRates
from sparsedial.records.study import Study
from sparsedial.showing.numbers import NONE
from sparsedial.showing.page import bullets, folded, heading, paragraph, pictures, table
from sparsedial.showing.rows import budgets, experts_tried, finished, line_of, open_side
from sparsedial.showing.words import law_sentence, listing, power_of_ten
from sparsedial.units import OPTIMIZERS, family_name, human_percent


def trust(study: Study, drawn: Mapping[str, str]) -> str:
    """How far to trust the finding: seeds, gaps, rates, and the law's errors; `drawn` holds the pictures."""
    return "\n".join(
        [
            heading("How far to trust it"),
            bullets([*_seeds(study), *_gaps_in_grid(study), *_rates(study)]),
            paragraph(law_sentence(study.law)),
            pictures(drawn, "held_out", "law"),
            _coefficients(study),
            pictures(drawn, "learning_rates", "expert_load"),
        ]
    )


def _seeds(study: Study) -> list[str]:
    verdict = study.verdict
    words = (
        f"Seeds: {verdict.flops.seeds} in each family at equal FLOPs, {verdict.seconds.seeds} at equal seconds,"
        " none of them used in the grid."
        if verdict.flops.seeds or verdict.seconds.seeds
        else "Sparse and dense were compared in the grid alone: no pair was trained with fresh seeds."
    )
    spread = study.seed_noise
    most = max((len(row.seed_losses) for row in study.cells_table), default=1)
    runs = "one run with one seed" if most == 1 else f"the mean of {most} seeds at the lowest budget, fewer above it"
    grid = f" Each cell of the grid is {runs}" + (
        f"; between seeds the loss varies by {spread:.4f} nats (one standard deviation)." if spread is not None else "."
    )
    return [words + grid]


def _gaps_in_grid(study: Study) -> list[str]:
    diverged = [row for row in study.cells_table if row.status == "diverged"]
    cells = "One cell" if len(diverged) == 1 else f"{len(diverged)} cells"
    diverged_lines = [f"{cells} diverged: the table of all cells has the reason."] if diverged else []
    open_lines = []
    for experts in experts_tried(study):
        for budget in budgets(study):
            side = open_side(study, budget, experts) if line_of(study, budget, experts) else None
            if side:
                open_lines.append(f"{family_name(experts)} at {power_of_ten(budget)} FLOPs ({side})")
    bracketed = (
        "At every budget, each sparsity's best size has a smaller and a larger neighbour that did worse."
        if not open_lines
        else f"Not bracketed, so the best size may be outside the tried range: {listing(open_lines)}."
    )
    return [*diverged_lines, bracketed]


NOTED = math.log2(1.1)  # a learning rate nearer to the modelled optimum is not worth a line


def _rates(study: Study) -> list[str]:
    distances = [abs(row.learning_rate_optimum_distance) for row in finished(study)]
    others = [_scanned(rates) for rates in study.other_learning_rates]
    if max(distances, default=0.0) < NOTED:
        return others
    return [
        *others,
        f"Learning rates: the median cell was trained within a factor of {2 ** statistics.median(distances):.2f}"
        f" of the modelled optimum, the furthest within a factor of {2 ** max(distances):.2f}.",
    ]


def _scanned(rates: LearningRates) -> str:
    inside = sum(scan.interior for scan in rates.scans)
    return (
        f"{OPTIMIZERS[rates.optimizer]}: {inside} of {len(rates.scans)} learning-rate scans have their best rate inside"
        " the scanned range."
    )


def _coefficients(study: Study) -> str:
    law = study.law
    if not law.coefficients:
        return ""
    intervals, undetermined = law.intervals, law.undetermined
    rows = [
        [
            name,
            f"{value:.4g}",
            " to ".join(f"{end:.4g}" for end in intervals[name]) if intervals.get(name) else NONE,
            "no" if name in undetermined else "yes",
        ]
        for name, value in law.coefficients.items()
    ]
    confidence = f"{human_percent(law.confidence)} interval" if law.confidence else "interval"
    open_ones = f"Coefficients that these data do not determine: {listing(undetermined)}." if undetermined else ""
    return paragraph(open_ones) + folded(
        f"The law's coefficients ({law.form})", table(["coefficient", "value", confidence, "determined"], rows)
    )
