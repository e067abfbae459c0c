"""The end of the report: text, machine, versions, and the table of all cells."""

from __future__ import annotations

from sparsedial.records.grid import CellRow
from sparsedial.records.launch import Launch
from sparsedial.records.quantities import Interval, Machine
from sparsedial.records.study import Study
from sparsedial.showing.machines_words import machines_sentence
from sparsedial.showing.numbers import NONE, count_words, loss_number, with_interval
from sparsedial.showing.page import folded, heading, paragraph, table
from sparsedial.showing.rows import best_cell, budgets
from sparsedial.showing.words import cost, overlap_sentence, power_of_ten, text_sentence
from sparsedial.units import family_name, human_bytes, human_seconds

HEADS = (
    "budget", "model", "width", "active", "total", "tokens", "loss", "predicted", "bits per byte", "seconds",
    "learning rate", "status", "run",
)  # fmt: skip


def text_and_machine(study: Study) -> str:
    """The text, the machine, the versions, and the time of each phase."""
    versions = [[name, str(value)] for name, value in study.versions.items()]
    phases = [[phase.name, human_seconds(phase.seconds)] for phase in study.phases]
    return "\n".join(
        [
            heading("Text and machine"),
            paragraph(text_sentence(study.text)),
            paragraph(_repeats(study)),
            paragraph(overlap_sentence(study.text)),
            table(
                ["machine", ""],
                [*_machine_rows(study.machine), ["digest of the text", study.text.digest]],
                "words",
            ),
            _machines(study.launch),
            folded("Versions", table(["", "version"], versions, "words")),
            folded("Where the time went", table(["phase", "time"], phases)) if phases else "",
        ]
    )


def _machines(launch: Launch | None) -> str:
    """Which machine trained how much, where there were several."""
    if launch is None or len(launch.hosts) < 2:
        return ""
    rows = [[host.name, str(host.cells), str(host.runs), "yes" if host.profile_digest else ""] for host in launch.hosts]
    return "\n".join(
        [
            table(["machine", "cells", "runs", "measured and timed"], rows),
            paragraph(f"All its machines: {machines_sentence(launch)}. Seconds are compared on one of them alone."),
        ]
    )


def _repeats(study: Study) -> str | None:
    repeats = [row.repeats for row in study.cells_table]
    return f"The longest run of the grid reads the training text {max(repeats):.2g} times." if repeats else None


def _machine_rows(machine: Machine) -> list[list[str]]:
    return [
        ["processor", machine.processor],
        ["cores", str(machine.cores)],
        ["memory", human_bytes(machine.memory_bytes)],
        ["system", machine.system],
        ["python", machine.python],
        ["gpus", ", ".join(machine.gpus) or "none"],
    ]


def everything(study: Study) -> str:
    """All cells: the best of each budget, and the folded table of all."""
    rows = sorted(study.cells_table, key=lambda row: (row.budget_flops, row.experts, row.active_parameters))
    lines = [_cell(row) for row in rows]
    best = [best_cell(study, budget) for budget in budgets(study)]
    summary = table(
        ["budget", "best cell", "loss"],
        [
            [
                f"{power_of_ten(row.budget_flops)} FLOPs",
                f"{family_name(row.experts)}, width {row.d_model}",
                loss_number(row.loss),
            ]
            for row in best
        ],
    )
    return "\n".join(
        [heading("All cells"), summary, folded(f"The table of all {len(lines)} cells", table(HEADS, lines))]
    )


def _cell(row: CellRow) -> list[str]:
    predicted = NONE
    if row.predicted_loss is not None:
        loss = Interval(mean=row.predicted_loss, low=row.predicted_low, high=row.predicted_high)
        predicted = with_interval(loss)
    return [
        power_of_ten(row.budget_flops),
        family_name(row.experts),
        str(row.d_model),
        count_words(row.active_parameters),
        count_words(row.total_parameters),
        count_words(row.tokens),
        loss_number(row.loss),
        predicted,
        loss_number(row.bits_per_byte),
        cost("seconds", row.seconds),
        f"{row.learning_rate:.3g}",
        row.status if not row.reason else f"{row.status}: {row.reason}",
        row.hash[:10],
    ]
