"""Progress: a picture on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import io

import pytest

from sparsedial.showing.progress import PLAIN_SECONDS, Progress, small_joules


class Clock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_away_from_a_terminal_lines_are_plain_and_few() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, clock=clock) as progress:
        for second in range(100):
            clock.now = float(second)
            progress.total(second, 200)
            progress.cell("a", "dense, width 48", second, 100, 2.5, 41_000, 2.3e-4)
    lines = stream.getvalue().splitlines()
    assert len(lines) == int(99 // PLAIN_SECONDS)
    assert "\x1b" not in stream.getvalue()
    assert "dense, width 48 step 29/100 loss 2.500 41k tokens/s 0.23 mJ/token" in lines[1]
    assert "15%" in lines[1]
    assert "2 min 50 s left" in lines[1]


@pytest.mark.parametrize(
    ("elapsed", "expected", "says"),
    [(200, 180, "[100%, 20 s longer than expected]"), (200.2, 200, "[100%, 0 s left]")],
)
def test_work_says_when_it_takes_longer_than_expected_by_more_than_half_a_second(elapsed, expected, says) -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, clock=clock) as progress:
        progress.total(elapsed, expected)
        clock.now = PLAIN_SECONDS
        progress.cell("a", "dense, width 48", 1, 9)
    assert says in stream.getvalue()


def test_a_line_without_any_whole_has_no_empty_brackets() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, clock=clock) as progress:
        clock.now = PLAIN_SECONDS
        progress.cell("a", "timing steps", 1, 9)
        progress.forget("a")
        clock.now *= 2
        progress.cell("b", "dense", 1, 9)
    assert stream.getvalue().splitlines() == ["timing steps step 1/9", "dense step 1/9"]


def test_a_cell_that_ended_leaves_its_text_and_its_line() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, clock=clock) as progress:
        progress.cell("a", "dense, width 48", 1, 9)
        progress.cell("b", "8 experts, width 48", 1, 9)
        progress.done("a", "dense, width 48: loss 2.1")
        clock.now = PLAIN_SECONDS
        progress.cell("b", "8 experts, width 48", 2, 9)
    said, line = stream.getvalue().splitlines()
    assert said == "dense, width 48: loss 2.1"
    assert "1 done" in line
    assert "8 experts, width 48 step 2/9" in line
    assert "dense" not in line


def test_the_whole_adds_rates_and_weighs_energy_by_tokens() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, clock=clock) as progress:
        progress.cell("a", "a", 1, 9, None, 1000, 1e-3)
        clock.now = PLAIN_SECONDS
        progress.cell("b", "b", 1, 9, None, 3000, 2e-3)
    assert "[4k tokens/s, 1.75 mJ/token]" in stream.getvalue()


def test_on_a_terminal_there_is_one_line_a_cell_and_a_bar() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, live=True, clock=clock) as progress:
        progress.total(50, 200)
        progress.cell("a", "dense, width 48", 5, 10, 2.5, 41_000)
        clock.now = 1.0
        progress.cell("b", "8 experts [top 2]", 1, 10, 2.9, 20_000)
        progress.note("a note")
    text = stream.getvalue()
    for said in (
        "dense, width 48",
        "8 experts [top 2]",
        "loss 2.500",
        " 25%",
        "2 min 30 s left",
        "61k tokens/s",
        "a note",
    ):
        assert said in text
    assert "━" in text


def test_a_terminal_is_left_whole_when_the_work_is_interrupted() -> None:
    stream = io.StringIO()

    def work() -> None:
        with Progress(stream, live=True) as progress:
            progress.cell("a", "dense", 1, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


@pytest.mark.parametrize(("value", "said"), [(0.5, "0.5 J"), (2.3e-4, "0.23 mJ"), (4e-5, "40 µJ"), (2e-8, "20 nJ")])
def test_joules_of_a_token_keep_a_readable_unit(value: float, said: str) -> None:
    assert small_joules(value) == f"{said}/token"


@pytest.mark.parametrize("estimated", [True, False])
def test_energy_from_stated_watts_is_marked_on_the_cell_and_in_the_whole(estimated):
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, live=False, clock=clock) as progress:
        clock.now += PLAIN_SECONDS
        progress.cell("a", "dense", 1, 2, 1.5, 1000.0, 5e-5, estimated)
    assert stream.getvalue().count("50 µJ/token (estimated)") == 2 * estimated


@pytest.mark.parametrize("columns", [160, 100, 84])
def test_a_narrow_terminal_leaves_out_energy_then_speed_and_never_the_label(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    label = "8 experts, width 24, 96.3k tokens, learning rate 0.00292"
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, live=True, clock=clock) as progress:
        clock.now = 1.0
        progress.cell("a", label, 29, 100, 2.5, 41_000, 2.3e-4, True)
    row = next(line for line in stream.getvalue().splitlines() if "29/100" in line)
    assert label in row
    assert "loss 2.500" in row
    assert ("tokens/s" in row, "mJ/token" in row) == (columns > 84, columns > 100)
