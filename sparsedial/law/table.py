"""A table of runs under our names, with the runs that a condition picks and that have what is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sparsedial.errors import UserError, nearest
from sparsedial.law.budgets import snapped
from sparsedial.law.entries import as_counts, as_numbers, is_missing
from sparsedial.law.expressions import matching, quoted, value
from sparsedial.law.reading import read_columns

MOST_RUNS = 20_000
MOST_WITHOUT_FLOPS = 0.5  # of the rows; with more, FLOPs are left out of a table that was not asked for them
TRUNK = "trunk"  # the column that names what branches of one run share
ADDED = (GROUP, WEIGHT, ROW) = ("group", "weight", "row")  # by us; a table's own of such a name is nothing to a law
# What laws speak of. A column of such a name in other spelling, like "Total Parameters", is taken for it.
KNOWN = (
    *("loss", "tokens", "flops", "total_parameters", "active_parameters"),
    *("sparsity", "experts", "granularity", "active_experts", "shared_share"),
)
STEP_WORDS = ("step", "steps", "iter", "iteration", "iterations", "updates")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Runs as columns of equal length.

    `rows` holds numbers alone: our names, and the table's other columns that have a number in every row. `words` holds
    every column by the table's own names, where NaN or an empty word is a missing entry.
    """

    path: Path
    rows: dict[str, np.ndarray]
    words: dict[str, np.ndarray]
    columns: Mapping[str, str]  # our names to the expressions that give them
    given: Mapping[str, str]  # those of them that were asked for
    where: str | None
    without: Mapping[str, int]  # how many rows were dropped, by what they lacked

    def __len__(self) -> int:
        return len(self.rows[ROW])

    @property
    def dropped(self) -> int:
        """How many rows were dropped because they lack something."""
        return sum(self.without.values())

    @property
    def names(self) -> dict[str, np.ndarray]:
        """Every column, by our names and by the table's; ours come first where both exist."""
        ours = {name: values for name, values in self.rows.items() if not (name in ADDED and name in self.words)}
        return {**self.words, **ours}

    def keep(self, picked: np.ndarray) -> Table:
        """Some of the rows, by mask or indices."""
        return replace(
            self,
            rows={name: values[picked] for name, values in self.rows.items()},
            words={name: values[picked] for name, values in self.words.items()},
        )

    def source(self, ours: str) -> str:
        """The expression that gives one of our columns."""
        return self.columns.get(ours, quoted(ours))

    def columns_hint(self, changes: Mapping[str, str]) -> str:
        """The setting `columns` with some of our names given otherwise, whole, so that it replaces what was given."""
        given = {**self.given, **changes}
        return f"<columns> {shell(','.join(f'{ours}={theirs}' for ours, theirs in given.items()))}"

    def where_hint(self, condition: str) -> str:
        """The setting `where` with a further condition, whole."""
        whole = condition if self.where is None else f"({self.where}) and {condition}"
        return f"<where> {shell(whole)}"


def shell(text: str) -> str:
    """A word in quotes for a shell."""
    return f"'{text}'" if "'" not in text else '"' + re.sub(r'([$`"\\])', r"\\\1", text) + '"'


def read_table(
    path: Path, columns: Mapping[str, str], where: str | None = None, group: str | None = None
) -> dict[str, np.ndarray]:
    """The rows of `open_table`."""
    return open_table(path, columns, where, group).rows


def open_table(
    path: Path,
    columns: Mapping[str, str],
    where: str | None = None,
    group: str | None = None,
    needed: Sequence[str] = (),
) -> Table:
    """A table under our names: those that `columns` gives, and every column of numbers under its own name.

    * `columns` maps our names to columns of the table, or to arithmetic over them (`params_b * 1e9`).
    * `where` selects rows, by the table's names or ours (ours where both exist).
    * `group` names columns, separated by commas, whose entries tell runs apart. Rows that share them are not
      independent; a row without an entry is. The default is `trunk` where there is such a column; `row` is no group.
    * Rows that lack one of `columns`, `needed` or FLOPs are dropped and counted. A needed column that the table lacks
      is left out.

    `flops` that agree within 2 % are one budget and become equal. `row` is a row's number in the table, from 1.

    Raises: UserError for a missing or unreadable file, no rows or too many, or a mapped column that is missing or does
    not hold numbers in the selected rows.
    """
    words = read_columns(path)
    columns = {ours: quoted(theirs) if theirs in words else theirs for ours, theirs in columns.items()}
    known = {ours: theirs for ours, theirs in _spelled_otherwise(words).items() if ours not in columns}
    mapped = {**known, **columns}
    numbers = np.arange(1.0, len(next(iter(words.values()), ())) + 1)
    if where is not None and words:
        picked = matching(_Names(mapped, words), where)
        words, numbers = {name: _again(values[picked]) for name, values in words.items()}, numbers[picked]
    rows = {ROW: numbers}
    table = Table(path=path, rows=rows, words=words, columns=mapped, given=columns, where=where, without={})
    if not len(numbers):
        raise UserError(f"{path}: holds no runs" + (f" with {where}" if where else ""))
    if len(numbers) > MOST_RUNS:
        raise UserError(
            f"{path}: {len(numbers):,} rows are too many: a law is fitted to runs, one row each", _last_rows_hint(table)
        )
    wanted = {name: quoted(name) for name in ("flops", *needed) if _says_enough(name, words)}
    ours = {name: _column(table, name, theirs) for name, theirs in {**wanted, **mapped}.items()}
    table = _complete(replace(table, rows={**table.rows, **ours}), tuple(ours))
    own = {name: values for name, values in table.words.items() if name not in ADDED}
    rows = {name: values for name, values in own.items() if values.dtype == float and not np.isnan(values).any()}
    rows |= table.rows
    if "flops" in rows:
        rows["flops"] = snapped(rows["flops"])
    if group != ROW and (group is not None or TRUNK in table.words):
        rows[GROUP] = _groups(table, group or TRUNK)
    if group is not None and GROUP in rows and not rows[GROUP].any():
        raise UserError(
            f"{path}: every run has the same '{group}', so none is independent of another",
            hint=f"leave <group> {shell(group)} out, or name a column that differs between trunks",
        )
    return replace(table, rows=rows)


def _says_enough(name: str, words: Mapping[str, np.ndarray]) -> bool:
    """Whether a column of our name is there and not empty; FLOPs, which no form asks for, also in half of the rows."""
    if name not in words:
        return False
    missing = is_missing(words[name]).mean()
    return bool(missing <= MOST_WITHOUT_FLOPS if name == "flops" else missing < 1)


class _Names(Mapping[str, np.ndarray]):
    """The table's columns and ours, which are made when one asks for them."""

    def __init__(self, columns: Mapping[str, str], words: Mapping[str, np.ndarray]) -> None:
        self.columns, self.words = columns, words

    def __getitem__(self, name: str) -> Any:
        size = len(next(iter(self.words.values())))
        if name in self.columns:
            return np.broadcast_to(value(self.columns[name], self.words), (size,))
        return self.words[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self.words, **self.columns})

    def __len__(self) -> int:
        return len({**self.words, **self.columns})


def _spelled_otherwise(words: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Our names for columns that spell them with capitals, spaces or other signs."""
    found: dict[str, list[str]] = {}
    for name, values in words.items():
        if not is_missing(values).all():
            found.setdefault(re.sub(r"\W+", "_", name.lower()).strip("_"), []).append(name)
    return {ours: quoted(found[ours][0]) for ours in KNOWN if ours not in words and len(found.get(ours, ())) == 1}


def _again(values: np.ndarray) -> np.ndarray:
    """Words as numbers, where the rows that were picked hold no others."""
    if values.dtype == float:
        return values
    numbers, missing = as_numbers(values), is_missing(values)
    return numbers if not missing.all() and (missing | ~np.isnan(numbers)).all() else values


def _last_rows_hint(table: Table) -> str:
    for name in table.words:
        if name.lower() in STEP_WORDS and table.words[name].dtype == float:
            return f"{table.where_hint(f'{quoted(name)} == max({quoted(name)})')} keeps the rows of the last step"
    return "keep each run's last row with <where>, for example 'step == 250000'"


def _column(table: Table, ours: str, theirs: str) -> np.ndarray:
    """One of our columns; NaN where the table has no finite number for it."""
    found = np.asarray(value(theirs, table.words))
    name = theirs.strip().strip("`")
    if found.dtype.kind == "U":
        found = as_counts(found)
    if found.dtype.kind == "U" and name in table.words:
        numbers, missing = as_numbers(found), is_missing(found)
        at = int(np.argmax(np.isnan(numbers) & ~missing))
        hint = table.columns_hint({ours: f"number({quoted(name)})"})
        raise UserError(
            f"{table.path}: row {table.rows[ROW][at]:.0f} has {name}='{found[at]}', which is not a number",
            hint=f"{hint} drops such rows" if not np.isnan(numbers).all() else nearest(ours, table.words),
        )
    found = np.broadcast_to(found, (len(table),))
    numbers = found.astype(float) if found.dtype.kind in "iuf" else np.full(len(table), np.nan)
    numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    if np.isnan(numbers).all():
        raise UserError(f"{table.path}: '{name}' for {ours} does not give a number in any row")
    return numbers


def _complete(table: Table, needed: Sequence[str]) -> Table:
    """The rows that lack nothing; those that do are counted by the first that they lack."""
    without: dict[str, int] = {}
    whole = np.ones(len(table), dtype=bool)
    for name in sorted(needed, key=lambda name: name != "loss"):
        lacking = whole & np.isnan(table.rows[name])
        if lacking.any():
            without[name] = int(lacking.sum())
        whole &= ~lacking
    if not whole.any():
        lacked = ", ".join(without)
        raise UserError(f"{table.path}: no row holds a number for each of {lacked}")
    return replace(table.keep(whole), without=without)


def _groups(table: Table, group: str) -> np.ndarray:
    """The number of each row's group. Raises: UserError for a missing column."""
    names = [group] if group in table.names else [name.strip() for name in group.split(",")]
    keys: list[np.ndarray] = []
    for name in names:
        if name not in table.names:
            raise UserError(f"{table.path}: no column '{name}' to group by", hint=nearest(name, table.names))
        keys.append(_numbered(table.names[name]))
    return np.unique(np.stack(keys), axis=1, return_inverse=True)[1].reshape(-1).astype(float)


def _numbered(entries: np.ndarray) -> np.ndarray:
    """A number for each entry, equal ones alike; every missing one has a number of its own."""
    missing = is_missing(entries)
    numbers = np.unique(entries, return_inverse=True)[1]
    numbers[missing] = len(entries) + np.arange(missing.sum())
    return np.unique(numbers, return_inverse=True)[1].astype(float)
