"""Learning rates: a scan ends with its optimum inside, and the model gives back what made the scans."""

from __future__ import annotations

import math

import pytest

from sparsedial.records.grid import Scan, rate_variables
from sparsedial.shape.ladder import Ladder
from sparsedial.sweep.rates import MOST_POINTS, fit_rates, next_rate, start_rates
from sparsedial.sweep.rates import scan_of as scan

LADDER = Ladder(vocab_size=256, context=64)


def scan_of(optimum: float, d_model: int = 16, experts: int = 0, tokens: int = 100_000, start: float = 0.01) -> Scan:
    """A scan of a parabola in log rate, followed to its end."""
    points: dict[float, float | None] = {start * factor: _loss(start * factor, optimum) for factor in (0.5, 1, 2)}
    while (rate := next_rate(points)) is not None:
        points[rate] = _loss(rate, optimum)
    return scan(LADDER.shape(d_model, experts), tokens, points)


def _loss(rate: float, optimum: float) -> float:
    return 2 + 0.05 * math.log(rate / optimum) ** 2


@pytest.mark.parametrize("optimum", [0.002, 0.005, 0.01, 0.03, 0.08])
def test_a_scan_follows_its_open_side_until_the_optimum_is_inside(optimum):
    scan = scan_of(optimum)
    assert scan.interior
    assert scan.optimum == pytest.approx(optimum, rel=0.01)


def test_a_diverged_rate_closes_its_side():
    assert next_rate({0.01: 2.0, 0.02: 1.9, 0.04: None}) is None
    assert next_rate({0.01: 1.9, 0.02: 2.0, 0.04: None}) == 0.005


def test_where_all_diverge_much_smaller_rates_are_tried():
    assert next_rate({0.01: None, 0.02: None}) == 0.0025


def test_a_scan_that_never_closes_ends_after_some_points():
    points: dict[float, float | None] = {rate: -rate for rate in (0.01, 0.02, 0.04)}
    while (rate := next_rate(points)) is not None:
        points[rate] = -rate
    assert len(points) == MOST_POINTS


def test_the_model_gives_back_the_rule_that_made_the_scans():
    def rule(d_model, experts, tokens):
        values = rate_variables(LADDER.shape(d_model, experts), tokens)
        return 0.01 * (values["active_parameters"] / 2e4) ** -0.4 * (tokens / 1e5) ** -0.1

    corners = [(16, 0, 200_000), (64, 0, 60_000), (16, 32, 200_000), (64, 32, 60_000), (16, 0, 60_000)]
    model = fit_rates([scan_of(rule(*corner), *corner) for corner in corners])
    for corner in [*corners, (32, 8, 100_000)]:
        shape = LADDER.shape(corner[0], corner[1])
        assert model.at(shape, corner[2]) == pytest.approx(rule(*corner), rel=0.15)


def test_larger_models_start_at_smaller_rates():
    assert start_rates(LADDER.shape(64, 0))[1] < start_rates(LADDER.shape(16, 0))[1]
