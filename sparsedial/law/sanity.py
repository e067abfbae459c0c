"""Whether a table of runs holds values that runs can have, in the units of the laws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sparsedial.errors import UserError
from sparsedial.law.fit import Rows

LEAST_COUNT = 1000.0  # no model has fewer parameters, no run fewer tokens
LEAST_LOSS, MOST_LOSS = 1e-6, 1e6
OTHER_UNITS = 1e4  # between counted FLOPs and 6 N D: more than any sparsity or attention explains
SHARES = ("sparsity", "shared_share")  # which may be 0
BIT_WORDS = ("bit", "bpb", "bpc")
NATS_PER_BIT = "0.6931"


def require_possible(rows: Rows, variables: Sequence[str], table: Path) -> None:
    """Raises: UserError for a loss or a variable that no run can have, with its row."""
    for name in ("loss", *dict.fromkeys((*variables, "flops"))):
        if name not in rows:
            continue
        values, share = rows[name], name in SHARES
        possible = (values >= 0) & (values < 1) if share else values > 0
        if not possible.all():
            first = int(np.argmin(possible))
            bounds = f"{name} >= 0 and {name} < 1" if share else f"{name} > 0"
            raise UserError(
                f"{table}: row {first + 1} has {name}={values[first]:g}",
                hint=f"<where> '{bounds}' leaves such rows out",
            )


def require_units(rows: Rows, columns: Mapping[str, str], table: Path) -> None:
    """Refuse what is obviously in other units than ours; `columns` maps our names to the table's.

    Raises: UserError that says which column, and how to convert it.
    """
    for name in ("total_parameters", "active_parameters", "tokens"):
        if name in rows and rows[name].max() < LEAST_COUNT:
            raise UserError(
                f"{table}: {name} is at most {rows[name].max():g}, which looks like millions or billions",
                hint=f"<columns> '{name}={columns.get(name, name)}*1e9' converts it",
            )
    source = columns.get("loss", "loss").lower()
    if source.isidentifier() and any(word in source for word in BIT_WORDS):
        raise UserError(
            f"{table}: '{source}' looks like bits, and a law's loss is in nats per token",
            hint=f"<columns> 'loss={source}*{NATS_PER_BIT}' converts bits per token",
        )
    _require_flops(rows, columns, table)
    loss = rows["loss"]
    if not LEAST_LOSS <= loss.max() <= MOST_LOSS:
        raise UserError(
            f"{table}: loss is at most {loss.max():g}, which cannot be a loss in nats per token",
            hint="<columns> 'loss=NAME' names the column that holds it",
        )
    if loss.min() == loss.max() and len(loss) > 1:  # a single run is refused as too few
        raise UserError(f"{table}: loss is {loss[0]:g} in every row")


def _require_flops(rows: Rows, columns: Mapping[str, str], table: Path) -> None:
    size = "active_parameters" if "active_parameters" in rows else "total_parameters"
    if not {"flops", "tokens", size} <= set(rows):
        return
    ratio = float(np.median(rows["flops"] / (6 * rows[size] * rows["tokens"])))
    if not 1 / OTHER_UNITS <= ratio <= OTHER_UNITS:
        raise UserError(
            f"{table}: flops are {ratio:.2g} times 6 x {size} x tokens, so one of them is in other units",
            hint=f"<columns> '{size}={columns.get(size, size)}*1e6' converts millions",
        )
