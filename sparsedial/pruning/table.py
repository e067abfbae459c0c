"""Every expert's scores as a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars

from sparsedial.pruning.scores import SCORES, Reached


def write_scores(
    file: Path, reached: Mapping[int, Reached], into: Mapping[int, Mapping[int, int]], groups: int
) -> None:
    """A row for each expert: how many tokens reached it, its scores by all methods, whether it stays.

    `into` has by layer and expert the one that it stays as or is merged into.
    """
    polars.concat(_of_layer(layer, seen, into[layer], groups) for layer, seen in reached.items()).write_parquet(file)


def _of_layer(layer: int, seen: Reached, into: Mapping[int, int], groups: int) -> polars.DataFrame:
    experts = len(seen.tokens_E)
    columns = {
        "layer": [layer] * experts,
        "expert": range(experts),
        "group": [expert * groups // experts for expert in range(experts)],
        "tokens": seen.tokens_E,
        **{name: score.of(seen) for name, score in SCORES.items()},  # null without a token
        "kept": [into.get(expert) == expert for expert in range(experts)],
        "into": [into.get(expert) for expert in range(experts)],  # null for one that is removed
    }
    return polars.DataFrame(columns, nan_to_null=True)
