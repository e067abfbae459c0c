"""A budget of speed, energy or quality gives the best setting that keeps it, or names the nearest."""

from __future__ import annotations

import pytest

from sparsedial.errors import UserError
from sparsedial.machine.hardware import describe
from sparsedial.records.dial_file import DialFile, DialPoint
from sparsedial.records.domains import DomainLoss
from sparsedial.records.evaluation import Joules
from sparsedial.records.prune import CheckpointCosts, Quantiles
from sparsedial.records.quantities import Interval
from sparsedial.records.setting import Setting
from sparsedial.serving.budget import choose
from sparsedial.shape.turned import parse_turned
from sparsedial.units import parse_joules_per_token, parse_speed
from tests.model.shapes import FAMILIES

EVEN = FAMILIES["qwen3_moe"]
LOSS = 2.0  # of the default


def costs(setting: Setting, speed: float, joules: float) -> CheckpointCosts:
    scored = Interval(mean=LOSS, low=None, high=None)
    rate = Quantiles(median=speed, p10=0.9 * speed, p90=1.1 * speed, count=3)
    return CheckpointCosts(
        total_parameters=1,
        active_parameters=setting.active_parameters,
        sparsity=setting.sparsity,
        weight_bytes=1,
        disk_bytes=1,
        disk_bytes_reason=None,
        loss={
            "text": DomainLoss(
                loss=LOSS,
                bits_per_byte=1.0,
                tokens=1,
                bytes=1,
                loss_interval=scored,
                bits_per_byte_interval=scored,
                interval_over="windows",
            )
        },
        tasks=None,
        prefill_tokens_per_second=rate,
        prefill_tokens_per_second_reason=None,
        decode_tokens_per_second=rate,
        decode_tokens_per_second_reason=None,
        peak_memory_bytes=1,
        peak_memory_bytes_reason=None,
        joules_per_token=Joules(joules=joules, low=None, high=None, basis="estimated", source="stated"),
        joules_per_token_reason=None,
    )


def point(name: str, speed: float, joules: float, grown: float, high: float | None = None) -> DialPoint:
    setting = Setting.of(parse_turned(name), EVEN)
    return DialPoint(
        setting=setting,
        status="measured",
        loss_increase=Interval(mean=grown, low=None if high is None else 2 * grown - high, high=high),
        loss_increase_reason=None,
        costs=costs(setting, speed, joules),
        costs_reason=None,
    )


def dial_of(*points: DialPoint) -> DialFile:
    return DialFile(
        checkpoint_digest="0" * 64,
        default="k=2",
        trained_for=None,
        settings=points,
        text_digest="0" * 64,
        machine=describe(),
        versions={},
    )


DIAL = dial_of(
    point("k=2", 20.0, 0.05, 0.0),
    point("k=1", 40.0, 0.03, 0.010, 0.018),
    point("k=1,skip=0", 80.0, 0.02, 0.3, 0.4),
    point("k=2,p=0.5", 30.0, 0.04, 0.1, 0.2),
)


@pytest.mark.parametrize(
    ("kind", "limit", "name", "reason"),
    [
        ("at_least", 10.0, "k=2", "lowest loss that keeps at least 10 tokens/s"),
        ("at_least", 20.0, "k=2", "lowest loss that keeps at least 20 tokens/s"),
        ("at_least", 25.0, "k=1", "lowest loss that keeps at least 25 tokens/s"),
        ("at_least", 50.0, "k=1,skip=0", "lowest loss that keeps at least 50 tokens/s"),
        ("at_most", 0.045, "k=1", "lowest loss that keeps at most 4.5 J per 100 tokens"),
        ("at_most", 0.02, "k=1,skip=0", "lowest loss that keeps at most 2 J per 100 tokens"),
        ("max_loss_increase", 0.01, "k=1", "cheapest that keeps loss_increase ≤ 1 %"),
        ("max_loss_increase", 0.008, "k=2", "cheapest that keeps loss_increase ≤ 0.8 %"),
        ("max_loss_increase", 0.2, "k=1,skip=0", "cheapest that keeps loss_increase ≤ 20 %"),
    ],
)
def test_the_best_setting_that_keeps_a_budget(kind, limit, name, reason):
    chosen, why = choose(DIAL, kind, limit)
    assert chosen.setting.name == name
    assert why == reason


def test_an_added_loss_is_kept_by_the_upper_end_of_its_interval():
    dial = dial_of(point("k=2", 20.0, 0.05, 0.0), point("k=1", 40.0, 0.03, 0.010, 0.021))
    assert choose(dial, "max_loss_increase", 0.01)[0].setting.name == "k=2"


@pytest.mark.parametrize(
    ("kind", "limit", "says"),
    [
        ("at_least", 1234.0, "no setting keeps 1,234 tokens/s: the nearest is k=1,skip=0 with 80 tokens/s"),
        ("at_least", 81.0, "no setting keeps 81 tokens/s: the nearest is k=1,skip=0 with 80 tokens/s"),
        ("at_most", 0.01, "no setting keeps 1 J per 100 tokens: the nearest is k=1,skip=0 with 2 J per 100 tokens"),
    ],
)
def test_a_budget_that_no_setting_keeps_names_the_nearest(kind, limit, says):
    with pytest.raises(UserError) as error:
        choose(DIAL, kind, limit)
    assert error.value.problem == says
    assert error.value.field == kind


def test_settings_that_were_only_named_are_passed_over():
    declared = DialPoint(
        setting=DIAL.settings[1].setting,
        status="declared",
        loss_increase=None,
        loss_increase_reason="not measured",
        costs=None,
        costs_reason="not measured",
    )
    assert choose(dial_of(DIAL.settings[0], declared), "at_least", 1.0)[0].setting.name == "k=2"
    with pytest.raises(UserError, match="no setting of the checkpoint was measured"):
        choose(dial_of(declared), "at_least", 1.0)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_speed, "40tok/s", 40.0),
        (parse_speed, "1.5 tokens/s", 1.5),
        (parse_speed, 40, 40.0),
        (parse_joules_per_token, "2J/100tok", 0.02),
        (parse_joules_per_token, "0.5 J / 10 tokens", 0.05),
        (parse_joules_per_token, "0.02J/tok", 0.02),
        (parse_joules_per_token, 0.02, 0.02),
    ],
)
def test_budgets_as_they_are_written(parse, text, value):
    assert parse(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_speed, "40s"),
        (parse_speed, "-1tok/s"),
        (parse_speed, "tok/s"),
        (parse_speed, "40tok"),
        (parse_joules_per_token, "2J"),
        (parse_joules_per_token, "2mJ/tok"),
        (parse_joules_per_token, "2J/0tok"),
        (parse_joules_per_token, "J/tok"),
    ],
)
def test_a_budget_that_cannot_be_read_shows_how(parse, text):
    with pytest.raises(UserError) as error:
        parse(text)
    assert "write it like" in str(error.value.hint)
