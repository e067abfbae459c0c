"""Whether a table of runs holds values that runs can have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsedial.errors import UserError
from sparsedial.law.expressions import scaled
from sparsedial.law.table import ROW, WEIGHT, Table

LEAST_LOSS, MOST_LOSS = 1e-6, 1e6
SHARES = ("sparsity", "shared_share")  # which may be 0
PER_CENT = 100


def require_possible(table: Table, variables: Sequence[str]) -> None:
    """Raises: UserError for a loss, a variable or a weight that no run can have, with its row."""
    for name in dict.fromkeys(("loss", *variables, "flops", WEIGHT)):
        if name not in table.rows:
            continue
        values, share = table.rows[name], name in SHARES
        possible = (values >= 0) & (values < 1) if share else values > 0
        if not possible.all():
            first = int(np.argmin(possible))
            bounds = f"{name} >= 0 and {name} < 1" if share else f"{name} > 0"
            hint = f"{table.where_hint(bounds)} leaves such rows out"
            if share and 1 < values.max() <= PER_CENT and values.min() >= 0:
                hint = f"{table.columns_hint({name: scaled(table.source(name), '/100')})} converts per cent"
            raise UserError(f"{table.path}: row {table.rows[ROW][first]:.0f} has {name}={values[first]:g}", hint=hint)


def require_losses(table: Table) -> None:
    """Raises: UserError for losses of a size that no loss has, or that are all the same."""
    loss = table.rows["loss"]
    if not LEAST_LOSS <= loss.max() <= MOST_LOSS:
        raise UserError(
            f"{table.path}: loss is at most {loss.max():g}, which cannot be a loss in nats per token",
            hint="<columns> 'loss=NAME' names the column that holds it",
        )
    if len(loss) > 1 and loss.min() == loss.max():  # a single run is refused as too few
        raise UserError(f"{table.path}: loss is {loss[0]:g} in every row")
