"""Rows that are points of one curve: checkpoints of a run. They share its luck, so they are one group."""

from __future__ import annotations

import re

import numpy as np

from sparsedial.law.table import ADDED, GROUP, Table, shell

STEP = re.compile(r"(^|[\W_])(steps?|iter(ation)?s?|updates?|checkpoints?|ckpt)($|[\W_\d])", re.IGNORECASE)
IDENTITY = re.compile(r"(^|[\W_])(run|id|name|trunk|experiment|exp|model)($|[\W_])", re.IGNORECASE)
LEAST_POINTS = 3  # of a run in the middle of the table, where a column counts steps
LEAST_EVEN_POINTS = 5  # where tokens grow by equal amounts, as between checkpoints
LEAST_POINTS_ALONE = 10  # where nothing else tells: nobody trains so many runs of one size from scratch
EVEN = 1.5  # times as many equal amounts as points, at most
FOLLOWS = ("loss", "tokens", "flops")  # change along a curve


def curves(table: Table) -> tuple[tuple[str, ...], np.ndarray] | None:
    """The columns that tell the runs of a table of checkpoints, and each row's run; None where rows are runs.

    Rows are points of curves where some columns part them into groups of one size each, whose points all differ in
    tokens, and which are long, evenly spaced, or numbered by a column of steps under one name. The finest such parting
    is the one.
    """
    sizes = [name for name in ("total_parameters", "active_parameters") if name in table.rows]
    tokens = _progress(table)
    if GROUP in table.rows or tokens is None or not sizes:
        return None
    size = _numbered(np.stack([table.rows[name] for name in sizes]))
    single = {(name,): numbers for name, numbers in _tellers(table).items()}
    with_size = {(sizes[0], *names): _numbered(np.stack([size, numbers])) for names, numbers in single.items()}
    for partings in (single, {(sizes[0],): size}, with_size):
        fitting = {names: run for names, run in partings.items() if _are_curves(table, names, run, size, tokens)}
        if fitting:
            return max(fitting.items(), key=lambda item: item[1].max())
    return None


def curve_note(table: Table, columns: tuple[str, ...], runs: np.ndarray) -> str:
    """A word on rows that were grouped; and on keeping one of each, where the table has no tokens to tell them."""
    names = ",".join(columns)
    points = f"rows look like checkpoints of {runs.max() + 1} runs, told by {names},"
    if "tokens" not in table.rows:
        step = _step_columns(table)[0][0]
        return f"{points} and no column gives their tokens: <best_of> {shell(step)} keeps one of each size"
    return f"{points} and are grouped by it: <group> 'COLUMN' names another, <group> row takes each row as a run"


def unclear_note(table: Table) -> str | None:
    """A word on rows that a column of steps shows to be checkpoints, where no column tells the runs."""
    if GROUP in table.rows:
        return None
    for name, values in _step_columns(table):
        if _many_steps(values, table):
            return f"rows look like checkpoints, by their '{name}': <group> 'COLUMN' names what tells the runs apart"
    return None


def _tellers(table: Table) -> dict[str, np.ndarray]:
    """Columns whose entries repeat, other than those that follow tokens."""
    found = {}
    for name, values in table.words.items():
        if name in (*FOLLOWS, *ADDED) or STEP.search(name) or name in table.columns.values():
            continue
        numbers = np.unique(values, return_inverse=True)[1].reshape(-1)
        if 1 <= numbers.max() < len(table) / 2:
            found[name] = numbers
    return found


def _progress(table: Table) -> np.ndarray | None:
    """What grows along a curve: tokens, or steps where they are not known."""
    if "tokens" in table.rows:
        return table.rows["tokens"]
    return next((values for _, values in _step_columns(table)), None)


def _step_columns(table: Table) -> list[tuple[str, np.ndarray]]:
    return [
        (name, values)
        for name, values in table.words.items()
        if STEP.search(name) and values.dtype == float and not np.isnan(values).any()
    ]


def _names_runs(table: Table, names: tuple[str, ...]) -> bool:
    """Whether a column may hold the names of runs, in a table in which no other column names each row."""
    words = [values for values in table.words.values() if values.dtype != float]
    named = any(len(np.unique(values)) == len(table) for values in words)
    return not named and len(names) == 1 and (table.words[names[0]].dtype != float or bool(IDENTITY.search(names[0])))


def _are_curves(table: Table, names: tuple[str, ...], run: np.ndarray, size: np.ndarray, tokens: np.ndarray) -> bool:
    count = run.max() + 1
    if len(np.unique(np.stack([run, size]), axis=1)[0]) != count:  # a run has one size
        return False
    if len(np.unique(np.stack([run, tokens]), axis=1)[0]) != len(run):  # and passes each count of tokens once
        return False
    points = float(np.median(np.bincount(run)))
    if points >= LEAST_POINTS_ALONE:
        return True
    if (
        points >= LEAST_POINTS
        and names[0] in table.words
        and _names_runs(table, names)
        and _steps_grow(table, run, tokens)
    ):
        return True
    return points >= LEAST_EVEN_POINTS and _evenly_spaced(run, tokens)


def _steps_grow(table: Table, run: np.ndarray, tokens: np.ndarray) -> bool:
    """Whether a column of steps grows with the tokens of each run, in equal measure."""
    for _, values in _step_columns(table):
        order = np.lexsort((tokens, run))
        inside = np.diff(run[order]) == 0
        if inside.any() and (np.diff(values[order])[inside] > 0).all():
            return True
    return False


def _evenly_spaced(run: np.ndarray, tokens: np.ndarray) -> bool:
    """Whether the tokens of most runs grow by equal amounts, as those of checkpoints do."""
    even = []
    for number in range(run.max() + 1):
        steps = np.diff(np.sort(tokens[run == number]))
        if len(steps) + 1 < LEAST_EVEN_POINTS:
            continue
        multiples = steps / steps.min()
        whole = np.abs(multiples - np.round(multiples)) < 0.02 * multiples
        even.append(bool(whole.all() and multiples.sum() <= EVEN * (len(steps) + 1)))
    return bool(even) and float(np.mean(even)) > 0.5


def _many_steps(values: np.ndarray, table: Table) -> bool:
    size = table.rows.get("active_parameters", table.rows.get("total_parameters"))
    if size is None:
        return False
    pairs = np.unique(np.stack([size, values]), axis=1)
    return len(pairs[0]) >= LEAST_POINTS_ALONE * len(np.unique(size))


def _numbered(columns: np.ndarray) -> np.ndarray:
    return np.unique(columns, axis=1, return_inverse=True)[1].reshape(-1)
