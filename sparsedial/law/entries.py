"""Entries of a column: numbers, words, and the many ways in which tables write that there is none."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from sparsedial.units import parse_count

# In lower case. Those of pandas and Excel, and what a run that diverged leaves behind: it has no loss to fit.
MISSING = frozenset(
    (
        *("", "-", "--", "?", ".", "na", "n/a", "#na", "#n/a", "#n/a n/a", "<na>", "none", "null", "nil", "missing"),
        *(sign + word for sign in ("", "+", "-") for word in ("nan", "inf", "infinity", "1.#ind", "1.#qnan", "1.#inf")),
        *("#div/0!", "#value!", "#num!"),
    )
)
DECIMAL_COMMA = r"^[+-]?\d*,\d+([eE][+-]?\d+)?$"
COUNT = re.compile(r"^\d+(\.\d+)?([eE]\+?\d+)? ?[kKmMbBgGtT]?$")
IN_THOUSANDS = r"^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$"


def entries(column: Any, decimal_comma: bool = False) -> np.ndarray:
    """A polars column as floats, where NaN is a missing or infinite entry; or as words, if there are any others.

    `decimal_comma` reads 3,5 as a number, as files with another separator may write it.
    """
    import polars

    if column.dtype.is_numeric():
        return _finite(column)
    words = column.cast(polars.String).str.strip_chars()
    numbers = _numbers(words, decimal_comma)
    others = words.filter(numbers.is_null() & ~_is_missing(words))
    if len(others) or not len(words):
        return np.array(words.fill_null("").to_list(), dtype=str)
    return _finite(numbers)


def as_numbers(values: np.ndarray) -> np.ndarray:
    """Words read as floats, NaN where one is no number; floats as they are."""
    import polars

    if values.dtype.kind in "iufb":
        return values.astype(float)
    return _finite(_numbers(polars.Series(values.tolist(), dtype=polars.String), False))


def as_counts(values: np.ndarray) -> np.ndarray:
    """Words like `125M` or `1.3B` as floats, where all that are not missing are such counts; else as they are."""
    missing = is_missing(values)
    if missing.all() or not all(COUNT.match(word) for word in values[~missing].tolist()):
        return values
    counts = np.full(len(values), np.nan)
    counts[~missing] = [parse_count(word) for word in values[~missing].tolist()]
    return counts


def is_missing(values: np.ndarray) -> np.ndarray:
    """Which entries of floats or of words say nothing."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    return np.array([word.lower() in MISSING for word in values.tolist()], dtype=bool)


def _is_missing(words: Any) -> Any:
    return words.is_null() | words.str.to_lowercase().is_in(list(MISSING)).fill_null(True)


def _numbers(words: Any, decimal_comma: bool) -> Any:
    import polars

    pattern, instead = (DECIMAL_COMMA, ".") if decimal_comma else (IN_THOUSANDS, "")
    if words.str.contains(",").any():
        word = polars.col("word")
        plain = polars.when(word.str.contains(pattern)).then(word.str.replace_all(",", instead)).otherwise(word)
        words = words.to_frame("word").select(plain).to_series()
    return words.cast(polars.Float64, strict=False)


def _finite(column: Any) -> np.ndarray:
    values = column.cast(float).fill_null(float("nan")).to_numpy().copy()
    values[~np.isfinite(values)] = np.nan
    return values
