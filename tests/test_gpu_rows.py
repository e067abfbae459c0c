"""The rows on GPUs of docs/speed.md: from a card's record, or not measured, with the command that measures them."""

from __future__ import annotations

import json

import pytest

from benchmarks.gpu_rows import RECORDS, ROWS, gpu_rows
from benchmarks.readme import README
from benchmarks.speeds import gpu_block

pytest.importorskip("triton", reason="installed without Triton")

from benchmarks.gpu import SECTIONS

FIGURES = {
    "card": {"name": "NVIDIA H100", "square_product_tflops": 600.0},
    "step": {"tax_8k": 1.5, "tax_32k": 1.25, "sparse_32k_tflops": 330.0, "sparse_8k_peak_gb": 12.0},
    "layer": {"olmoe_times_grouped": 1.19},  # the other was not reached
    "liger": {"olmoe_times_liger": 1.3, "deepseek_times_liger": 1.2},
    "replay": {"sparse_32_replayed_ms": 0.71, "streams_8_times_one": 4.25, "compile_seconds": 3.0},
    "study": {"accepted": 1, "cells": {"finished": 24}, "budgets_flops": [5e12, 2e13]},
    "long_study": {"accepted": 0},
}


def test_without_a_record_every_row_names_the_sections_that_measure_it(tmp_path):
    rows = gpu_rows(tmp_path)
    assert len(rows) == len(ROWS)
    assert all(measured.startswith("not measured: `python -m benchmarks.gpu --sections ") for _, _, measured, _ in rows)
    assert {section for row in ROWS for section in row.sections} <= set(SECTIONS)


def test_the_readme_says_that_no_gpu_was_measured_until_one_was(tmp_path):
    """Then the measured rows stand there, and only those."""
    assert gpu_block(tmp_path).startswith("No GPU has been measured yet")
    lines = [{"section": name, "figures": FIGURES[name]} for name in ("card", "replay")]
    (tmp_path / "gpu_nvidia_h100.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    block = gpu_block(tmp_path)
    assert "0.71 ms, NVIDIA H100" in block
    assert "ot measured" not in block
    assert block.count("NVIDIA H100") == 3


def test_pages_say_that_nothing_ran_on_a_gpu_only_as_long_as_there_is_no_record():
    unmeasured = ("nothing of\nthis page has run on a GPU", "No card has been measured yet")
    page = (README.parent / "docs" / "gpu.md").read_text()
    assert [words in page for words in unmeasured] == [not list(RECORDS.glob("gpu_*.jsonl"))] * 2


def test_a_card_s_last_figures_are_its_rows(tmp_path):
    lines = [
        {"command": "python -m benchmarks.gpu"},
        {"section": "step", "figures": {**FIGURES["step"], "tax_8k": 3.2}},
    ]
    lines += [{"section": name, "figures": figures} for name, figures in FIGURES.items()]
    lines += [{"section": "replay", "status": "left out", "figures": {}}]  # a later run had no time for it
    (tmp_path / "gpu_nvidia_h100.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    measured = [cells[2] for cells in gpu_rows(tmp_path)]
    assert measured == [
        "not measured: `python -m benchmarks.gpu --sections layer`",
        "1.30 and 1.20 times as fast, NVIDIA H100",
        "1.50 times its time, NVIDIA H100",
        "1.25 times its time, NVIDIA H100",
        "55 % of it, NVIDIA H100",
        "12.0 GB, NVIDIA H100",
        "0.71 ms, NVIDIA H100",
        "4.2 times its steps, NVIDIA H100",
        "3.0 s, NVIDIA H100",
        "24 cells, 2 budgets up to 2e13 FLOPs, NVIDIA H100",
        "refused, NVIDIA H100",
    ]
