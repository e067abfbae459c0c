"""What an hour's study found by its probes, for README.md and docs/probes.md."""

from __future__ import annotations

from pathlib import Path

from sparsedial.records.probes import ProbeScore
from sparsedial.records.record import read
from sparsedial.records.study import Study
from sparsedial.showing.report_probes import equal_loss_sentences, level_words, probed_models
from sparsedial.showing.words import power_of_ten
from sparsedial.units import family_name, human_bytes, human_percent, human_seconds

RECORD = Path(__file__).parent / "records" / "probes_study" / "study.json"


def probes_sentences() -> str:
    """What the study was, and both answers at equal loss."""
    study = read(RECORD, Study)
    assert study.probes is not None
    told = (
        f"{study.cells.finished} cells over {len(study.sparsities)} sparsities and {len(study.budgets_flops)} budgets"
        f" up to {power_of_ten(study.budgets_flops[-1])} FLOPs, on {human_bytes(study.text.bytes)} of text,"
        f" {human_percent(study.probes.share)} of the training tokens probes, {human_seconds(study.wall_seconds)} on"
        f" {study.machine.cores} cores."
    )
    return "\n".join([told, "", *(f"* {sentence}" for sentence in equal_loss_sentences(study.probes))])


def probes_table() -> str:
    """The right answers of the best dense and the best sparse cell of the largest budget, level by level."""
    study = read(RECORD, Study)
    assert study.probes is not None
    models = probed_models(study, study.probes)
    names = [f"{family_name(row.experts)}, width {row.d_model}, loss {row.loss:.3f}" for row, _ in models]
    rows = [
        f"| {kind}: {level_words(level)} | {score.items} | {human_percent(score.chance)} |"
        + "".join(f" {_exact(cell.probes.get(kind, {}).get(level))} |" for _, cell in models)
        for kind, levels in models[0][1].probes.items()
        for level, score in levels.items()
    ]
    heads = f"| level | items | chance | {' | '.join(names)} |"
    return "\n".join([heads, f"|{' --- |' * (3 + len(names))}", *rows])


def _exact(score: ProbeScore | None) -> str:
    if score is None:
        return "–"
    return human_percent(score.exact.mean) + (" (at chance)" if score.at_chance else "")
