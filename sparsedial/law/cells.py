"""Cells of a table: runs of one size, one number of tokens and one sparsity, which differ in seed or settings."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from sparsedial.errors import UserError, nearest
from sparsedial.law.budgets import snapped
from sparsedial.law.expressions import in_quotes, quoted
from sparsedial.law.table import ADDED, KNOWN, Table

SEED_WORDS = ("seed", "replicate", "repeat", "trial")
SETTINGS = re.compile(
    r"(^|[\W_])(lr|eta|learning[\W_]?rate|batch([\W_]?size)?|bs|wd|weight[\W_]?decay|warmup|beta_?[12]|optimi[sz]er)"
    r"($|[\W_\d])",
    re.IGNORECASE,
)
TEXTS = re.compile(r"(^|[\W_])(data|dataset|set|corpus|split|domain|task|metric)s?($|[\W_\d])", re.IGNORECASE)
LEAST_SHARE_SWEPT = 0.1  # of the cells: with fewer, a sweep is not worth a word


def cells(table: Table) -> np.ndarray:
    """The number of each row's cell. Tokens that agree within 2 % are the same: a run has a whole number of steps."""
    columns = [
        snapped(table.rows[name]) if name in ("tokens", "flops") else table.rows[name] for name in _variables(table)
    ]
    return np.unique(np.stack(columns), axis=1, return_inverse=True)[1].reshape(-1)


def best_of(table: Table, swept: Sequence[str]) -> Table:
    """The runs with the best setting of each cell: those with the least loss over the columns `swept`.

    Where a column tells seeds, settings are compared by their mean over seeds, and every seed of the best one stays.

    Raises: UserError for a column that is missing or a variable of the law, or where no cell holds a sweep.
    """
    for name in swept:
        if name not in table.names:
            raise UserError(
                f"{table.path}: no column '{name}' to take the best of",
                hint=nearest(name, table.names),
                field="best_of",
            )
        if name in KNOWN or quoted(name) in table.columns.values():
            raise UserError(
                f"'{name}' is a variable of the law, so its values are cells of their own",
                hint="name a column that the runs of a cell differ in",
                field="best_of",
            )
    cell = cells(table)
    setting = _numbers(table, swept)
    if _distinct(np.stack([cell, setting])) == _distinct(cell[None]):
        raise UserError(f"{table.path}: no cell holds more than one '{', '.join(swept)}'", hint="leave <best_of> out")
    seeds = [name for name in table.words if _is_seed(name) and name not in swept]
    seed = _numbers(table, seeds) if seeds else np.zeros(len(cell), dtype=int)
    loss = table.rows["loss"]
    kept: list[int] = []
    for number in range(cell.max() + 1):
        runs = np.flatnonzero(cell == number)
        by_setting = {one: _best_of_each(runs[setting[runs] == one], seed, loss) for one in np.unique(setting[runs])}
        kept += min(by_setting.values(), key=lambda rows: float(loss[rows].mean()))
    return table.keep(np.array(sorted(kept)))


def _variables(table: Table) -> list[str]:
    """What tells cells apart: all that laws speak of. FLOPs follow from it where tokens are known."""
    follows = ("loss", "flops") if "tokens" in table.rows else ("loss",)
    return [name for name in KNOWN if name in table.rows and name not in follows]


def sweep_note(table: Table) -> str | None:
    """A word on settings that the runs of many cells differ in, so that not all of them are at their best."""
    names = ",".join(_differ(table, SETTINGS))
    if not names:
        return None
    return f"runs of one size and tokens differ in {names}: <best_of> '{names}' keeps the best of each"


def texts_note(table: Table) -> str | None:
    """A word on texts that the rows of many cells differ in, so that their losses do not compare."""
    names = [name for name in _differ(table, TEXTS) if table.words[name].dtype != float]
    if not names:
        return None
    first = table.where_hint(f"{quoted(names[0])} == {in_quotes(table.words[names[0]][0])}")
    return f"runs of one size and tokens differ in {', '.join(names)}; losses compare on one, as with {first}"


def _differ(table: Table, pattern: re.Pattern[str]) -> list[str]:
    """Columns of such a name that differ inside of many cells."""
    cell = cells(table)
    count = cell.max() + 1
    found = []
    for name, values in table.words.items():
        if not pattern.search(name) or name in ADDED or quoted(name) in table.columns.values():
            continue
        pairs = np.unique(np.stack([cell, np.unique(values, return_inverse=True)[1]]), axis=1)
        if (np.bincount(pairs[0], minlength=count) > 1).mean() > LEAST_SHARE_SWEPT:
            found.append(name)
    return found


def _is_seed(name: str) -> bool:
    return any(word in SEED_WORDS for word in re.split(r"[\W_\d]+", name.lower()))


def _best_of_each(runs: np.ndarray, seed: np.ndarray, loss: np.ndarray) -> list[int]:
    """The best run of each seed."""
    found = {}
    for run in sorted(runs.tolist(), key=lambda run: -loss[run]):
        found[int(seed[run])] = run
    return list(found.values())


def _numbers(table: Table, names: Sequence[str]) -> np.ndarray:
    """A number for each combination of entries of some columns."""
    columns = [np.unique(table.names[name], return_inverse=True)[1] for name in names]
    return np.unique(np.stack(columns), axis=1, return_inverse=True)[1].reshape(-1)


def _distinct(columns: np.ndarray) -> int:
    return np.unique(columns, axis=1).shape[1]
