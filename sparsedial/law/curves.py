"""Rows that are points of one curve: checkpoints of a run. They share its luck, so they are one group."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from sparsedial.law.expressions import quoted
from sparsedial.law.table import ADDED, GROUP, Table, shell

STEP = re.compile(r"(^|[\W_])(steps?|iter(ation)?s?|updates?|checkpoints?|ckpt)($|[\W_\d])", re.IGNORECASE)
IDENTITY = re.compile(r"(^|[\W_])(run|id|name|trunk|experiment|exp|model)($|[\W_])", re.IGNORECASE)
LEAST_POINTS = 3  # of a run in the middle of the table, where a column counts steps
LEAST_EVEN_POINTS = 5  # where tokens grow by equal amounts, as between checkpoints
LEAST_POINTS_ALONE = 10  # where nothing else tells: nobody trains so many runs of one size from scratch
EVEN = 1.5  # times as many equal amounts as points, at most
FOLLOWS = ("loss", "tokens", "flops")  # change along a curve


Parting = tuple[tuple[str, ...], np.ndarray]  # columns, and the number of each row's group by them


def curves(table: Table) -> Parting | None:
    """The columns that tell the runs of a table of checkpoints, and each row's run; None where rows are runs.

    Rows are points of curves where some columns part them into groups of one size each, whose points all differ in
    tokens. A column of words, or one that is named like runs are, is believed where its curves are long, evenly spaced,
    or numbered by a column of steps; sizes with settings only where they are evenly spaced, or long and numbered. The
    finest such parting is the one.
    """
    named, sized = _partings(table)
    return _finest(table, named, _are_curves) or _finest(table, sized, _are_checkpoints)


def _finest(table: Table, partings: Sequence[Parting], told: Callable[[Table, Parting], bool]) -> Parting | None:
    return max((one for one in partings if told(table, one)), key=lambda one: int(one[1].max()), default=None)


def _partings(table: Table) -> tuple[list[Parting], list[Parting]]:
    """How columns part the rows into groups of one size in which tokens never repeat: by names, and by sizes."""
    sizes = [name for name in ("total_parameters", "active_parameters") if name in table.rows]
    tokens = _progress(table)
    if GROUP in table.rows or tokens is None or not sizes:
        return [], []
    size = _numbered(np.stack([table.rows[name] for name in sizes]))
    tellers = _tellers(table)
    named = [((name,), run) for name, run in tellers.items() if _may_name_runs(table, name)]
    by_both = [((sizes[0], name), _numbered(np.stack([size, run]))) for name, run in tellers.items()]

    def parts(one: Parting) -> bool:
        run = one[1]
        of_one_size = len(np.unique(np.stack([run, size]), axis=1)[0]) == run.max() + 1
        return of_one_size and len(np.unique(np.stack([run, tokens]), axis=1)[0]) == len(run)

    sized = list(filter(parts, [((sizes[0],), size)])) or list(filter(parts, by_both))
    return list(filter(parts, named)), sized


def curve_note(table: Table, columns: tuple[str, ...], runs: np.ndarray) -> str:
    """A word on rows that were grouped; and on keeping one of each, where the table has no tokens to tell them."""
    names = ",".join(columns)
    points = f"rows look like checkpoints of {runs.max() + 1} runs, as {names} tells,"
    if "tokens" not in table.rows:
        step = _step_columns(table)[0][0]
        return f"{points} and no column gives their tokens: <best_of> {shell(step)} keeps one of each size"
    return f"{points} and are grouped by it: <group> 'COLUMN' names another, <group> row takes each row as a run"


def unclear_note(table: Table) -> str | None:
    """A word on rows that may be checkpoints, where nothing tells for certain."""
    long = _finest(table, _partings(table)[1], lambda _, one: _points(one[1]) >= LEAST_POINTS_ALONE)
    if long is not None:
        names = ",".join(long[0])
        return f"if rows are checkpoints of {long[1].max() + 1} runs, <group> {shell(names)} takes each run as one"
    for name, values in _step_columns(table):
        if GROUP not in table.rows and _many_steps(values, table):
            return f"rows look like checkpoints, by their '{name}': <group> 'COLUMN' names what tells the runs apart"
    return None


def _tellers(table: Table) -> dict[str, np.ndarray]:
    """Columns whose entries repeat, other than those that follow tokens."""
    found = {}
    for name, values in table.words.items():
        if name in (*FOLLOWS, *ADDED) or STEP.search(name) or quoted(name) in table.columns.values():
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


def _may_name_runs(table: Table, name: str) -> bool:
    return table.words[name].dtype != float or bool(IDENTITY.search(name))


def _each_row_is_named(table: Table) -> bool:
    words = [values for values in table.words.values() if values.dtype != float]
    return any(len(np.unique(values)) == len(table) for values in words)


def _points(run: np.ndarray) -> float:
    return float(np.median(np.bincount(run)))


def _are_curves(table: Table, parting: Parting) -> bool:
    """Whether groups with a name are curves."""
    run, points = parting[1], _points(parting[1])
    numbered = points >= LEAST_POINTS and not _each_row_is_named(table) and _steps_grow(table, run)
    return numbered or points >= LEAST_POINTS_ALONE or _evenly_spaced(table, run)


def _are_checkpoints(table: Table, parting: Parting) -> bool:
    """Whether groups of one size, which may also be runs of several lengths, are curves."""
    run = parting[1]
    return _evenly_spaced(table, run) or (_points(run) >= LEAST_POINTS_ALONE and _steps_grow(table, run))


def _steps_grow(table: Table, run: np.ndarray) -> bool:
    """Whether a column of steps grows with the tokens of each run."""
    tokens = _progress(table)
    for _, values in _step_columns(table):
        order = np.lexsort((values if tokens is None else tokens, run))
        inside = np.diff(run[order]) == 0
        if inside.any() and (np.diff(values[order])[inside] > 0).all():
            return True
    return False


def _evenly_spaced(table: Table, run: np.ndarray) -> bool:
    """Whether runs have some points, and the tokens of most grow by equal amounts, as those of checkpoints do."""
    tokens = _progress(table)
    if tokens is None or _points(run) < LEAST_EVEN_POINTS:
        return False
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
