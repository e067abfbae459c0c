"""The intervals of a fit hold the truth about as often as they say, on few tables; the record has many."""

from __future__ import annotations

import pytest

from benchmarks.law_coverage import DESIGNS, RECORD, cover, summary
from sparsedial.store import read_json

TABLES, SAMPLES = 40, 100
LEAST = 0.75  # of 40 tables; at 90 % one in 300 lies below
WIDEST = 2.0  # times the record's


@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_cover_without_being_wide(design):
    held, widths, _ = cover(design, range(10_000, 10_000 + TABLES), SAMPLES)
    found, kept = summary(held, widths), read_json(RECORD)["designs"][design]
    assert {name: share for name, share in found["coverages"].items() if share < LEAST} == {}
    for name, width in found["widths_over_truth"].items():
        assert width < WIDEST * kept["widths_over_truth"][name], name


def test_the_record_covers_as_it_should_in_every_design():
    designs = read_json(RECORD)["designs"]
    assert set(designs) == set(DESIGNS)
    for name, design in designs.items():
        assert 0.85 <= design["coverage"] <= 0.95, name
