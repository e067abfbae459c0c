"""Sizes, tokens and FLOPs in other units than ones: recognised, and the factors that mend them found."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sparsedial.errors import UserError
from sparsedial.law.expressions import scaled
from sparsedial.law.table import Table

LEAST_COUNT = 1000.0  # no model has fewer parameters, no run fewer tokens
MOST_PARAMETERS, MOST_TOKENS = 1e13, 1e15
MOST_FLOPS = 1e28
SIZES = ("active_parameters", "total_parameters")  # the one that FLOPs follow comes first
# Counted FLOPs over 6 N D: tables of embeddings, attention, and forms of sparsity explain these, units do not.
LEAST_RATIO, MOST_RATIO = {"active_parameters": 1 / 30, "total_parameters": 1 / 3000}, 300.0
LEAST_PER_PARAMETER, MOST_PER_PARAMETER = 0.02, 1e6  # tokens, in the median
USUAL_PER_PARAMETER = 20.0
LONE, GAP = 0.1, 100  # where so few rows have too small a count, that far below the others, they are wrong, no unit is
PF_DAY = 8.64e19
# How unusual a unit is, by its factor.
COUNT_FACTORS = {1.0: 0.0, 1e6: 0.0, 1e9: 0.0, 1e12: 0.15, 1e3: 0.3, 1e-3: 0.6, 1e-6: 0.6, 1e-9: 0.6}
FLOPS_FACTORS = {1.0: 0.0, 1e15: 0.0, 1e18: 0.0, 1e21: 0.0, 1e12: 0.1, 1e9: 0.1, PF_DAY: 0.3, 1e6: 0.3, 1e3: 0.3}
PER_CHANGE = 0.5  # a single column in other units is likelier than several
NAMED = 0.8  # gained where a column's name holds the unit
UNIT_WORDS = {
    **dict.fromkeys(("k", "thousand", "thousands"), 1e3),
    **dict.fromkeys(("m", "mn", "mil", "mio", "million", "millions"), 1e6),
    **dict.fromkeys(("b", "bn", "billion", "billions", "bil", "g", "gflops", "gflop"), 1e9),
    **dict.fromkeys(("t", "tn", "trillion", "trillions", "tflops", "tflop"), 1e12),
    **dict.fromkeys(("pflops", "pflop", "petaflops", "petaflop"), 1e15),
    **dict.fromkeys(("eflops", "eflop", "exaflops", "exaflop"), 1e18),
    **dict.fromkeys(("zflops", "zettaflops", "zettaflop"), 1e21),
    **dict.fromkeys(("pfdays", "pfday", "pf"), PF_DAY),
}
IMPOSSIBLE = 5.0


def require_units(table: Table) -> None:
    """Refuse sizes, tokens or FLOPs that are in other units than ones.

    Raises: UserError that says what shows it, and gives the columns that mend it, or the condition that leaves out the
    rows that are wrong.
    """
    counts = {name: table.rows[name] for name in (*SIZES, "tokens", "flops") if name in table.rows}
    shown = _wrong(counts)
    if shown is None:
        return
    lone = _lone_hint(table, counts)
    if lone is not None:
        raise UserError(f"{table.path}: {shown}", hint=lone)
    raise UserError(f"{table.path}: {shown}", hint=_factors_hint(table, counts))


def _wrong(counts: Mapping[str, np.ndarray]) -> str | None:
    """What shows that a column is in other units, or None."""
    for name, values in counts.items():
        if name != "flops" and values.min() < LEAST_COUNT:
            return (
                f"{name} is {values.min():.4g} in a row, and no {'run' if name == 'tokens' else 'model'} has so few: it"
                " looks like millions or billions"
            )
    size = _size(counts)
    if size is None or "tokens" not in counts:
        return None
    tokens = counts["tokens"]
    if "flops" in counts:
        ratio = float(np.median(counts["flops"] / (6 * counts[size] * tokens)))
        if not LEAST_RATIO[size] <= ratio <= MOST_RATIO:
            return f"flops are {ratio:.2g} times 6 x {size} x tokens, so one of them is in other units"
    each = float(np.median(tokens / counts[size]))
    if not LEAST_PER_PARAMETER <= each <= MOST_PER_PARAMETER:
        return f"{each:.2g} tokens for each of {size} in the median, so one of them is in other units"
    return None


def _size(counts: Mapping[str, np.ndarray]) -> str | None:
    return next((name for name in SIZES if name in counts), None)


def _lone_hint(table: Table, counts: Mapping[str, np.ndarray]) -> str | None:
    """The condition that leaves out a few wrong rows, where the others are right."""
    conditions, kept = [], np.ones(len(table), dtype=bool)
    for name, values in counts.items():
        small = values < LEAST_COUNT
        if name == "flops" or not small.any():
            continue
        if small.mean() > LONE or values[~small].min() < GAP * values[small].max():
            return None
        conditions.append(f"{name} >= {LEAST_COUNT:g}")
        kept &= ~small
    if not conditions or _wrong({name: values[kept] for name, values in counts.items()}):
        return None
    return f"{table.where_hint(' and '.join(conditions))} leaves such rows out"


@dataclass(frozen=True)
class _Medians:
    """The ends and logarithms of a column's entries."""

    low: float
    high: float
    middle: float


def _factors_hint(table: Table, counts: Mapping[str, np.ndarray]) -> str:
    """The columns as they should be given."""
    factors = _best_factors(table, counts)
    mended = {name: counts[name] * factors[name] for name in counts}
    changes = {
        name: scaled(table.source(name), f"*{_spelled(factor)}") for name, factor in factors.items() if factor != 1
    }
    size = _size(counts)
    if changes and _wrong(mended) is None:
        words = "converts them" if len(changes) > 1 else "converts it"
        return f"{table.columns_hint(changes)} {words}"
    if "flops" in counts and size is not None and _wrong({n: v for n, v in counts.items() if n != "flops"}) is None:
        product = "".join(scaled(table.source(name), "*") for name in (size, "tokens")).rstrip("*")
        return f"{table.columns_hint({'flops': f'6*{product}'})} counts them anew"
    wrong = next((name for name in counts if counts[name].min() < LEAST_COUNT), size or "tokens")
    return f"{table.where_hint(f'{wrong} >= {LEAST_COUNT:g}')} leaves out what no run has"


def _best_factors(table: Table, counts: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The factors that make the columns agree with each other and with what runs are like, at the least change."""
    names = list(counts)
    ends = {
        name: _Medians(low=float(values.min()), high=float(values.max()), middle=float(np.median(np.log10(values))))
        for name, values in counts.items()
    }
    choices = [list(FLOPS_FACTORS if name == "flops" else COUNT_FACTORS) for name in names]
    tried = (dict(zip(names, factors, strict=True)) for factors in itertools.product(*choices))
    named = {name: _named_factor(table.source(name)) for name in names}
    return min(tried, key=lambda factors: _unlikely(ends, factors, named))


def _unlikely(ends: Mapping[str, _Medians], factors: Mapping[str, float], named: Mapping[str, float | None]) -> float:
    """How unlikely it is that the columns are in these units."""
    total = 0.0
    for name, factor in factors.items():
        usual = FLOPS_FACTORS if name == "flops" else COUNT_FACTORS
        total += usual[factor] + (PER_CHANGE if factor != 1 else 0) - (NAMED if factor == named[name] else 0)
        most = {"flops": MOST_FLOPS, "tokens": MOST_TOKENS}.get(name, MOST_PARAMETERS)
        total += IMPOSSIBLE * (ends[name].low * factor < LEAST_COUNT) + IMPOSSIBLE * (ends[name].high * factor > most)
    middle = {name: ends[name].middle + math.log10(factor) for name, factor in factors.items()}
    sizes = [name for name in SIZES if name in middle]
    if len(sizes) == 2:
        total += IMPOSSIBLE * (not -0.1 <= middle["total_parameters"] - middle["active_parameters"] <= 2.7)
    if sizes and "tokens" in middle:
        total += 0.2 * abs(middle["tokens"] - middle[sizes[0]] - math.log10(USUAL_PER_PARAMETER))
        if "flops" in middle:
            total += abs(middle["flops"] - math.log10(6) - middle[sizes[0]] - middle["tokens"])
    return total


def _named_factor(source: str) -> float | None:
    """The factor that a column's name holds, like `params_b` or `Tokens (billions)`."""
    words = [word for word in re.split(r"[\W_\d]+", source.lower()) if word]
    pairs = ["".join(pair) for pair in itertools.pairwise(words)]
    return next((UNIT_WORDS[word] for word in [*pairs, *reversed(words[1:])] if word in UNIT_WORDS), None)


def _spelled(factor: float) -> str:
    power = round(math.log10(factor))
    return f"1e{power}" if math.isclose(factor, 10.0**power) else f"{factor:g}".replace("e+", "e")
