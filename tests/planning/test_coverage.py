"""A plan's intervals of gap and crossover hold the truth about as often as they say; the record has many tables."""

from __future__ import annotations

from collections import Counter

from benchmarks.plan_coverage import HELD, MISSED, RECORD, judge
from sparsedial.store import read_json

TABLES = 24
MOST_MISSED = 7  # of 24; at 10 % one in 300 has more


def test_gap_and_crossover_are_covered_near_the_crossover():
    counts = Counter(each for seed in range(10_000, 10_000 + TABLES) for each in judge(seed, ("4 seconds",)))
    for what in ("gap to dense", "crossover"):
        held, missed = (counts["4 seconds", what, how] for how in (HELD, MISSED))
        assert held + missed == TABLES
        assert missed <= MOST_MISSED, what
    assert not counts["4 seconds", "winner", "wrong"]


def test_the_record_covers_as_it_should():
    shares = read_json(RECORD)["shares"]
    asked = [shares["4 seconds"]["crossover"], *(quantities["gap to dense"] for quantities in shares.values())]
    for row in asked:
        assert 0.85 <= row[HELD] <= 0.95
    assert all(quantities["winner"].get("wrong", 0) <= 0.02 for quantities in shares.values())
