"""An answer ends before its first stop string, and nothing of one is ever sent, however the text is cut."""

from __future__ import annotations

import random

import pytest

from sparsedial.serving.stopping import Stops


def slowly(text: str, strings: tuple[str, ...]) -> tuple[str, bool]:
    """The definition: letter by letter, up to the one at which a string is complete."""
    for end in range(1, len(text) + 1):
        starts = [end - len(string) for string in strings if text[:end].endswith(string)]
        if starts:
            return text[: min(starts)], True
    return text, False


@pytest.mark.parametrize("seed", range(40))
def test_pieces_of_any_size_give_the_text_before_the_first_string(seed: int) -> None:
    draw = random.Random(seed)
    text = "".join(draw.choices("ab\n", k=60))
    strings = tuple("".join(draw.choices("ab\n", k=draw.randint(2, 7))) for _ in range(draw.randint(0, 4)))
    expected, found = slowly(text, strings)
    stops, said, rest = Stops(strings), "", text
    while rest:
        cut = draw.randint(1, 9)
        said += stops.push(rest[:cut])
        assert expected.startswith(said), "a part of a string was sent"
        rest = rest[cut:]
    assert (said + stops.end(), stops.found) == (expected, found)


def test_only_what_may_become_a_string_waits() -> None:
    stops = Stops(["\n\nUser:"])
    assert stops.push("One.\nTwo.\n\n") == "One.\nTwo."
    assert stops.push("Us") == ""
    assert stops.push("ual.") == "\n\nUsual."
    assert Stops([]).push("all of it") == "all of it"


def test_of_several_strings_in_one_piece_the_one_that_is_complete_first_counts() -> None:
    assert Stops(["world", "lo"]).push("Hello, world") == "Hel"
    assert Stops(["lo", "ello"]).push("Hello") == "H", "both end with the same letter"
