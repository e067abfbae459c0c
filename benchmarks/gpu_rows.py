"""The rows of docs/speed.md on GPUs: from the records of `benchmarks.gpu`, or not measured, with the command."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsedial.units import human_cost, human_percent

RECORDS = Path(__file__).parent / "records"
STEP = "GPU step: OLMoE's widths, 3 layers"
NOT_MEASURED = "not measured"
SMALL = "32 experts, top-2, d_model 32, 2 layers"
Figures = Mapping[str, Mapping[str, Any]]  # by section, by name


@dataclass(frozen=True, kw_only=True)
class GpuRow:
    """What is measured, beside what, by which sections, and how it is said."""

    what: str
    beside: str
    aim: str
    sections: tuple[str, ...]
    said: Callable[..., str]  # of the figures of its sections, in their order

    def cells(self, card: str, found: Figures) -> tuple[str, str, str, str]:
        """The row; a figure that is missing was not measured."""
        try:
            measured = f"{self.said(*(found[section] for section in self.sections))}, {card}"
        except KeyError:
            measured = f"{NOT_MEASURED}: `python -m benchmarks.gpu --sections {','.join(self.sections)}`"
        return self.what, self.beside, measured, self.aim


def _study(figures: Mapping[str, Any]) -> str:
    if not figures["accepted"]:
        return "late" if "late" in figures else "refused"
    budgets = figures["budgets_flops"]
    return f"{figures['cells']['finished']} cells, {len(budgets)} budgets up to {human_cost('flops', budgets[-1])}"


ROWS = (
    GpuRow(
        what="GPU sparse layer, forward and backward, bf16, at OLMoE's and DeepSeek's sizes",
        beside="`grouped_mm`",
        aim="≥ 1.15 times as fast",
        sections=("layer",),
        said=lambda layer: (
            f"{layer['olmoe_times_grouped']:.2f} and {layer['deepseek_times_grouped']:.2f} times as fast"
        ),
    ),
    GpuRow(
        what="the same",
        beside="Liger's fused experts",
        aim="≥ 1.15 times as fast",
        sections=("liger",),
        said=lambda liger: f"{liger['olmoe_times_liger']:.2f} and {liger['deepseek_times_liger']:.2f} times as fast",
    ),
    GpuRow(
        what=f"{STEP}, 8,192 tokens",
        beside="dense model, same active size",
        aim="≤ 1.55 times its time",
        sections=("step",),
        said=lambda step: f"{step['tax_8k']:.2f} times its time",
    ),
    GpuRow(
        what=f"{STEP}, 32,768 tokens",
        beside="dense model, same active size",
        aim="≤ 1.30 times its time",
        sections=("step",),
        said=lambda step: f"{step['tax_32k']:.2f} times its time",
    ),
    GpuRow(
        what=f"{STEP}, 32,768 tokens",
        beside="the rate of a large bf16 product",
        aim="≥ 50 % of it",
        sections=("card", "step"),
        said=lambda card, step: f"{human_percent(step['sparse_32k_tflops'] / card['square_product_tflops'])} of it",
    ),
    GpuRow(
        what=f"{STEP}, 8,192 tokens",
        beside="an earlier version of ours, whose peak was not recorded",
        aim="≤ 0.7 of its memory",
        sections=("step",),
        said=lambda step: f"{step['sparse_8k_peak_gb']:.1f} GB",
    ),
    GpuRow(
        what=f"GPU step: {SMALL}",
        beside="–",
        aim="≤ 1 ms",
        sections=("replay",),
        said=lambda replay: f"{replay['sparse_32_replayed_ms']:.2f} ms",
    ),
    GpuRow(
        what=f"eight GPU runs at once: {SMALL}",
        beside="one run",
        aim="≥ 4 times its steps",
        sections=("replay",),
        said=lambda replay: f"{replay['streams_8_times_one']:.1f} times its steps",
    ),
    GpuRow(
        what="compiling before the first step, three widths, sparse and dense (nothing is tuned there)",
        beside="–",
        aim="≤ 5 s",
        sections=("replay",),
        said=lambda replay: f"{replay['compile_seconds']:.1f} s",
    ),
    GpuRow(
        what="GPU study of `--time 150s`",
        beside="–",
        aim="a verdict over two budgets",
        sections=("study",),
        said=_study,
    ),
    GpuRow(
        what="GPU study of `--time 5m`",
        beside="–",
        aim="≥ 36 cells, up to 3e13 FLOPs",
        sections=("long_study",),
        said=_study,
    ),
)


def gpu_rows(records: Path = RECORDS) -> list[tuple[str, str, str, str]]:
    """Every row for every card with a record; where there is none, each says that it was not measured."""
    cards = {file: _latest(file) for file in sorted(records.glob("gpu_*.jsonl"))}
    found = [row.cells(_name(file, figures), figures) for row in ROWS for file, figures in cards.items()]
    return found or [row.cells("", {}) for row in ROWS]


def _latest(file: Path) -> Figures:
    """The figures of each section's last run that found some: one without time for a section takes none away."""
    rows = map(json.loads, file.read_text().splitlines())
    return {row["section"]: row["figures"] for row in rows if row.get("figures")}


def _name(file: Path, found: Figures) -> str:
    return found.get("card", {}).get("name", file.stem.removeprefix("gpu_").replace("_", " "))
