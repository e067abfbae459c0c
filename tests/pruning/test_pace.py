"""A calibration that takes long says how far it is, and one that does not says nothing."""

from __future__ import annotations

from sparsedial.pruning.pace import Pace


def said_at(*heard: tuple[float, int]) -> list[str]:
    """What is said of ten layers, by the seconds at which each number of them is done."""
    said, times = list[str](), iter([second for second, _ in heard])
    made = Pace(said.append, times.__next__)
    for _, done in heard:
        made.heard(done, 10)
    return said


def test_the_layers_that_are_left_take_as_long_as_those_before():
    assert said_at((0, 0), (10, 1), (20, 2), (30, 3), (40, 4)) == [
        "layer 2 of 10, about 80 s left",
        "layer 4 of 10, about 60 s left",
    ]


def test_layers_that_were_done_before_a_stop_took_no_time_now():
    assert said_at((100, 8), (120, 9)) == ["layer 9 of 10, about 20 s left"]


def test_another_passage_has_a_time_of_its_own():
    assert said_at((0, 0), (1, 10), (1000, 0), (1016, 1)) == ["layer 1 of 10, about 2 min 24 s left"]


def test_nothing_is_said_of_what_is_quick_or_done():
    assert said_at(*((second, second) for second in range(11))) == []
    assert said_at((0, 9), (60, 10)) == []
