"""Human numbers."""

import pytest

from sparsedial.errors import UserError
from sparsedial.units import (
    human_bytes,
    human_cost,
    human_count,
    human_dollars,
    human_joules,
    human_percent,
    human_seconds,
    parse_bytes,
    parse_count,
    parse_counts,
    parse_growth,
    parse_joules,
    parse_seconds,
    parse_share,
    signed,
    spelled_at_least,
    spelled_seconds,
    unbroken,
)


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (parse_count, "131B", 131e9),
        (parse_count, "1e18", 1e18),
        (parse_count, 40_000, 40_000),
        (parse_share, "8%", 0.08),
        (parse_share, "7 %", 0.07),
        (parse_share, 0.08, 0.08),
        (parse_growth, "2%", 0.02),
        (parse_growth, 2.5, 2.5),
        (parse_growth, "200%", 2.0),
        (parse_seconds, "10m", 600),
        (parse_seconds, "1.5h", 5400),
        (parse_seconds, "2m30s", 150),
        (parse_seconds, "1h30m", 5400),
        (parse_seconds, "1d 2h 3min 4.5s", 93784.5),
        (parse_seconds, "4 min 05 s", 245),  # as times are printed
        (parse_joules, "5mJ", 5e-3),
        (parse_joules, "5 MJ", 5e6),
        (parse_joules, "2mWh", 7.2),
        (parse_joules, "2MWh", 7.2e9),
        (parse_joules, "2.5kWh", 9e6),
        (parse_joules, "3KJ", 3e3),
        (parse_count, "3M", 3e6),
        (parse_count, "3m", 3e6),
        (parse_bytes, "3mb", 3e6),
        (parse_bytes, "80GB", 80e9),
        (parse_bytes, "512MiB", 512 * 1024**2),
    ],
)
def test_human_numbers_are_read_with_their_units(read, text, value):
    assert read(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["2", "1"])
def test_a_growth_of_two_hundred_percent_is_asked_for_in_percent(text):
    with pytest.raises(UserError, match=r"is [12]00%") as error:
        parse_growth(text, "max_loss_increase")
    assert error.value.hint == f"write {float(text):g}% or {float(text):g}00%, whichever you mean"


@pytest.mark.parametrize(
    "text", ["0", "-3", "ten", "1e999", "10 parsecs", "", "nan", "30m1h", "1h1h", "1h30", "1h-5m", "2m30x", "0h0m"]
)
def test_what_is_no_positive_number_is_refused_with_an_example(text):
    with pytest.raises(UserError) as error:
        parse_seconds(text, "time")
    assert error.value.field == "time"
    assert "like" in (error.value.hint or "")


@pytest.mark.parametrize("text", ["45s", "3m", "10m", "1.5h", "2d", "1e+99d", "0.25s", "100s", "61s"])
def test_seconds_are_spelled_as_they_are_read(text):
    assert parse_seconds(spelled_seconds(parse_seconds(text))) == parse_seconds(text)
    assert len(spelled_seconds(parse_seconds(text))) <= len(text)


@pytest.mark.parametrize(("seconds", "text"), [(61, "2m"), (7199, "120m"), (7201, "3h"), (87_297 * 60, "61d")])
def test_a_least_time_is_rounded_up_in_a_unit_that_reads_well(seconds, text):
    assert spelled_at_least(seconds) == text


def test_numbers_stay_on_one_line_with_their_units():
    said = unbroken("63 models in 32 min 38 s, 2 h 10 min; 4.1 % of 10.9 MB at 5 seeds")
    assert said.replace("\N{NO-BREAK SPACE}", "_") == (
        "63 models in 32_min_38_s, 2_h_10_min; 4.1_% of 10.9_MB at 5 seeds"
    )


def test_numbers_below_zero_have_a_minus_sign():
    assert [signed(0.118), signed(-0.0094), signed(-0.2, ".1%")] == ["+0.118", "−0.009", "−20.0%"]
    assert human_percent(-0.0061) == "−0.61 %"


def test_figures_are_written_with_their_units():
    assert human_count(671_026_404_352) == "671B"
    assert human_seconds(245) == "4 min 05 s"
    assert human_seconds(0.0042) == "4.2 ms"
    assert human_percent(0.0417) == "4.2 %"
    assert human_percent(2e-6) == "0.0002 %"
    assert human_bytes(1.34e12) == "1.34 TB"
    assert human_joules(4500) == "4.5 kJ"
    assert [human_joules(value) for value in (0.0, 0.12, 0.0142, 0.00026)] == ["0 J", "0.12 J", "14.2 mJ", "0.26 mJ"]
    assert human_joules(2.52e6) == "2,520 kJ"
    assert human_bytes(2.25e18) == "2.25 EB"
    assert human_seconds(1e9) == "31.7 years"
    assert human_joules(7.2e9) == "2 MWh"
    assert human_cost("flops", 3.2e9) == "3.2e9 FLOPs"
    assert [human_cost(*cost) for cost in (("flops", 1e18), ("seconds", 6e5), ("dollars", 2.5), ("dollars", 4e6))] == [
        "1e18 FLOPs",
        "6.9 days",
        "$2.50",
        "$4,000,000",
    ]
    assert [human_dollars(value) for value in (0.0034, 0.1, 9.9, 12.3, 2508)] == [
        "$0.0034",
        "$0.10",
        "$9.90",
        "$12",
        "$2,508",
    ]
    assert human_count(1e21) == "1e21"


def test_the_unit_is_that_of_the_rounded_figure():
    assert [human_count(value) for value in (999.4, 999.6, 999_999, -999_600, 999.9e12)] == [
        "999", "1k", "1M", "-1M", "1e15",
    ]  # fmt: skip
    assert [human_bytes(value) for value in (999, 999_999, 999.7e9)] == ["999 B", "1 MB", "1 TB"]
    assert [human_joules(value) for value in (999.7, 999_800, 3.5999e9)] == ["1 kJ", "1,000 kJ", "1 MWh"]
    assert [human_seconds(value) for value in (0.9994, 0.9996)] == ["999 ms", "1 s"]


def test_counts_are_read_from_words_lists_and_single_numbers():
    assert parse_counts("20k,50k") == parse_counts([20_000, "50k"]) == parse_counts((2e4, 5e4)) == (2e4, 5e4)
    assert parse_counts(2e4) == (2e4,)
