"""The part of the report about probes: what the models of the largest budget can answer, and at equal loss."""

from __future__ import annotations

from collections.abc import Mapping

from sparsedial.records.grid import CellRow
from sparsedial.records.probes import ProbedCell, ProbeScore, StudyProbes
from sparsedial.records.study import Study
from sparsedial.showing.numbers import NONE
from sparsedial.showing.page import bullets, heading, paragraph, pictures, table
from sparsedial.showing.rows import budgets, finished
from sparsedial.showing.words import listing, power_of_ten
from sparsedial.units import family_name, human_percent

Model = tuple[CellRow, ProbedCell]


def probes_section(study: Study, probes: StudyProbes, drawn: Mapping[str, str]) -> str:
    """What the probes found."""
    models = probed_models(study, probes)
    return "\n".join(
        [
            heading("Arithmetic, facts and reading"),
            paragraph(_what_they_are(probes)),
            bullets(equal_loss_sentences(probes)),
            *([paragraph(_above_chance(models)), _scores(models)] if models else []),
            pictures(drawn, "abilities", "probes"),
        ]
    )


def probed_models(study: Study, probes: StudyProbes) -> list[Model]:
    """The best probed cell of each family at the largest budget, dense first."""
    scored = {cell.run: cell for cell in probes.cells}
    top = max(budgets(study), default=0.0)
    rows = [row for row in finished(study) if row.hash in scored and row.budget_flops == top]
    families = [[row for row in rows if bool(row.experts) == sparse] for sparse in (False, True)]
    best = [min(family, key=lambda row: row.bounded_loss) for family in families if family]
    return [(row, scored[row.hash]) for row in best]


def _what_they_are(probes: StudyProbes) -> str:
    return (
        f"Probes are made-up questions that small models can answer. {human_percent(probes.share)} of the training"
        " tokens teach them; validation and test text holds none of them, so every loss in this report is of the text"
        " alone. Answers are counted as right where they are given to the letter. Fewer bits per byte of the right"
        " answer are better."
    )


def equal_loss_sentences(probes: StudyProbes) -> list[str]:
    """Whether sparser models read worse, or know more, at equal validation loss."""
    return [probes.reading_at_equal_loss.sentence, probes.facts_at_equal_loss.sentence]


def level_words(level: str) -> str:
    """A level's name as text."""
    return level.replace("_", " ")


def _above_chance(models: list[Model]) -> str:
    """The levels that each model answers better than by guessing."""
    found: list[str] = []
    for row, cell in models:
        known = {
            kind: [level_words(level) for level, score in levels.items() if not score.at_chance]
            for kind, levels in cell.probes.items()
        }
        said = [f"{kind} ({listing(levels)})" for kind, levels in known.items() if levels]
        found.append(f"{family_name(row.experts)}: {listing(said) if said else 'nothing'}")
    return f"Answered better than by guessing, by the best cells of the largest budget: {'; '.join(found)}."


def _scores(models: list[Model]) -> str:
    names = [f"{family_name(row.experts)}, width {row.d_model}" for row, _ in models]
    first = models[0][1]
    rows = [
        [
            f"{kind}: {level_words(level)}",
            str(score.items),
            human_percent(score.chance),
            *(_exact(cell.probes.get(kind, {}).get(level)) for _, cell in models),
        ]
        for kind, levels in first.probes.items()
        for level, score in levels.items()
    ]
    return table([f"right answers at {power_of_ten(models[0][0].budget_flops)} FLOPs", "items", "chance", *names], rows)


def _exact(score: ProbeScore | None) -> str:
    if score is None:
        return NONE
    return human_percent(score.exact.mean) + (" (at chance)" if score.at_chance else "")
