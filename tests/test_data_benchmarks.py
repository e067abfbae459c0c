"""What the benchmarks of leaving data out count as found, and which side they choose."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import polars

from benchmarks.dirtied import judged
from benchmarks.selection_effect import Arm, summed
from tests.sweep.effects import effect_of


def rows(**reasons: str | None) -> polars.DataFrame:
    """A manifest of these documents, by name with `__` for a slash."""
    names = [name.replace("__", "/") for name in reasons]
    return polars.DataFrame(
        {"id": names, "bytes": [10] * len(names), "reason": list(reasons.values())},
        schema={"id": polars.String, "bytes": polars.Int64, "reason": polars.String},
    )


def test_a_copy_is_found_where_it_or_its_original_goes():
    planted = {
        "a/copy": {"kind": "near", "original": "a/one", "jaccard": 0.9},
        "a/other": {"kind": "near", "original": "a/two", "jaccard": 0.9},
        "a/third": {"kind": "near", "original": "a/three", "jaccard": 0.9},
        "a/menu": {"kind": "menu", "original": None, "jaccard": None},
    }
    manifest = rows(
        a__one="near", a__copy=None, a__two=None, a__other="held_out_near", a__three=None, a__third=None,
        a__menu="gopher_bullets", b__real="gopher_words",
    )  # fmt: skip
    copies = judged(manifest, "copies", planted)
    assert copies["found"] == {"near": 2, "menu": 0}
    assert copies["originals_taken"] == 1
    assert copies["real_taken"] == {"documents": 0, "bytes": 0}
    rules = judged(manifest, "gopher", planted)
    assert rules["found"] == {"near": 0, "menu": 1}
    assert rules["real_taken_bytes"] == {"a": 0, "b": 10}


def arm(worth: float) -> Any:
    """A selection whose kept part is worth so many nats."""
    fields = dict.fromkeys(Arm.__struct_fields__)
    return SimpleNamespace(**{**fields, "effect": effect_of({"kept": lambda tokens: -worth}, seed_noise=0.0)})


def test_the_side_is_that_of_the_lowest_validation_loss_once_all_are_measured():
    found = {"low": arm(0.01), "middle": arm(0.05), "high": arm(0.02), "filters": arm(0.09)}
    assert summed(found)["chosen_side"] == "middle"
    assert summed({name: found[name] for name in ("low", "middle")})["chosen_side"] is None
    assert list(summed(found)["arms"]) == list(found)
