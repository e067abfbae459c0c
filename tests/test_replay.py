"""The reference study's verdict, law, plan and findings follow from its stored runs.

Words and choices must be the same. Numbers may differ by one part in a million, since processors add up in different
orders.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.replay import RECORD, replay

DIGESTS = ("record_digest", "law_digest")  # of the numbers as they were written
RELATIVE = 1e-6


def differences(found: Any, stored: Any, place: str = "") -> Iterator[str]:
    """Where two files differ by more than the order of additions."""
    if isinstance(found, dict) and isinstance(stored, dict) and list(found) == list(stored):
        for key in found:
            if key not in DIGESTS:
                yield from differences(found[key], stored[key], f"{place}/{key}")
    elif isinstance(found, list) and isinstance(stored, list) and len(found) == len(stored):
        for number, pair in enumerate(zip(found, stored, strict=True)):
            yield from differences(*pair, f"{place}/{number}")
    elif isinstance(found, float) and isinstance(stored, float):
        if not math.isclose(found, stored, rel_tol=RELATIVE, abs_tol=1e-12):
            yield f"{place}: {found} instead of {stored}"
    elif found != stored:
        yield f"{place}: {found} instead of {stored}"


@pytest.mark.slow
def test_the_stored_runs_give_the_stored_files_again(tmp_path):
    replay(RECORD, tmp_path)
    for name in ("study", "law", "plan", "profile"):
        found, stored = (json.loads((folder / f"{name}.json").read_text()) for folder in (tmp_path, RECORD))
        assert not list(differences(found, stored)), name


def test_a_changed_number_word_or_key_is_a_difference():
    stored = {"loss": 1.0, "verdict": "sparse", "runs": [1, 2], "record_digest": "a"}
    assert not list(differences({**stored, "loss": 1 + 1e-9, "record_digest": "b"}, stored))
    for change in ({"loss": 1.00001}, {"verdict": "dense"}, {"runs": [1]}, {"runs": [1, 3]}, {"more": None}):
        assert len(list(differences({**stored, **change}, stored))) == 1
