"""The verdict: dense minus sparse at equal cost, with Welch's interval over fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparsedial.units import human_cost

CONFIDENCE = 0.95
COST_TOLERANCE = 0.03
MOST_MISS = 0.1  # of a cost that may still be weighed in nats


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> dict[str, float | None]:
    """Mean with Student's t interval; the interval is null with a single value."""
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def welch_gap(dense: Sequence[float], sparse: Sequence[float], confidence: float = CONFIDENCE) -> dict[str, float]:
    """Dense minus sparse mean loss with Welch's t interval; needs two seeds in each family.

    Source: Welch 1947, Biometrika 34
    """
    from scipy import stats

    gap = float(np.mean(dense) - np.mean(sparse))
    parts = [float(np.var(values, ddof=1)) / len(values) for values in (dense, sparse)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return {"mean": gap, "low": gap, "high": gap}
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (dense, sparse), strict=True)
    )
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return {"mean": gap, "low": gap - half, "high": gap + half}


def undecided(currency: str, reason: str, budget: float | None = None, basis: str = "measured") -> dict[str, Any]:
    """A verdict that could not be reached, with the reason."""
    return {
        "winner": "undecided",
        "reason": reason,
        "budget": {"currency": currency, "value": budget},
        "sparse": None,
        "dense": None,
        "gap": None,
        "confidence": CONFIDENCE,
        "seeds": 0,
        "basis": basis,
        "cost_miss": None,
    }


def decide(
    currency: str,
    budget: float,
    dense: Sequence[dict[str, Any]],
    sparse: Sequence[dict[str, Any]],
    open_sides: Sequence[str],
    edges: Mapping[str, str] | None = None,
    basis: str = "measured",
    worth: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The verdict of one currency from the run records of both families, one record a seed.

    Undecided where a run diverged, a minimum was not bracketed (`open_sides` says which), the winner cost over 3 % more
    than the budget or the loser as much less, fewer than two seeds finished, or the gap's interval holds 0; also where
    the loser's size was the last candidate (`edges` by family): the winner's may be, since a better one would only win
    by more. A cost up to 10 % off is weighed where a law says what cost is worth (`worth` by family: nats for each
    e-fold): the verdict stands if the interval excludes 0 with all that the misses can explain taken off. The reason
    names all that stands in the way, whatever else does.
    """
    finished = [[run for run in runs if run["status"] == "finished"] for runs in (dense, sparse)]
    if min(map(len, finished)) < 2:
        return undecided(currency, "fewer than two seeds of each family finished", budget, basis)
    losses = [[run["test_loss"] for run in runs] for runs in finished]
    gap = welch_gap(losses[0], losses[1])
    winner = "sparse" if gap["low"] > 0 else "dense" if gap["high"] < 0 else "undecided"
    better, worse = ("sparse", "dense") if gap["mean"] > 0 else ("dense", "sparse")
    at_edge = [(edges or {})[worse]] if worse in (edges or {}) else []
    misses = _cost_misses(currency, budget, finished[0], finished[1], better)
    nats = _worth_of(misses, worth)
    surplus = max(gap["low"], -gap["high"])  # of the interval's nearer end above 0
    excused = nats is not None and nats < surplus
    missed = " and ".join(_miss_words(misses)) if misses else None
    reasons = [*open_sides, *at_edge, *([missed] if missed and not excused else [])]
    interval = f"95 % interval of dense minus sparse {gap['low']:+.4f} to {gap['high']:+.4f}"
    spread = f"{abs(gap['mean']):.4f} nats per token ({interval})"
    if winner == "undecided":
        reason = f"the interval of the gap holds 0: {better} is ahead by {spread}"
        reason += f"; besides, {'; '.join(reasons)}" if reasons else ""
    elif reasons:
        winner, reason = "undecided", f"{better} is ahead by {spread}, but " + "; ".join(reasons)
    else:
        reason = f"{winner} is better by {spread} at {human_cost(currency, budget)}"
    return {
        "winner": winner,
        "reason": reason,
        "budget": {"currency": currency, "value": budget},
        "sparse": family(finished[1]),
        "dense": family(finished[0]),
        "gap": gap,
        "confidence": CONFIDENCE,
        "seeds": min(map(len, finished)),
        "basis": basis,
        "cost_miss": {"words": missed, "worth_nats": nats} if missed else None,
    }


def _cost_misses(
    currency: str, budget: float, dense: Sequence[dict[str, Any]], sparse: Sequence[dict[str, Any]], better: str
) -> dict[str, float]:
    """By family, by what share its costs miss the budget to the better family's advantage, where by over 3 %."""
    misses = {}
    for name, runs in (("dense", dense), ("sparse", sparse)):
        costs = [run[currency] for run in runs if run[currency] is not None]
        excess = float(np.mean(costs)) / budget - 1 if costs else math.nan
        if not (excess if name == better else -excess) <= COST_TOLERANCE:
            misses[name] = excess
    return misses


def _miss_words(misses: Mapping[str, float]) -> list[str]:
    return [f"the {name} runs cost {_off_words(excess)}" for name, excess in misses.items()]


def _off_words(excess: float) -> str:
    if math.isnan(excess):
        return "an amount that is not known"
    return f"{100 * abs(excess):.3g} % {'more' if excess > 0 else 'less'} than the budget"


def _worth_of(misses: Mapping[str, float], worth: Mapping[str, float] | None) -> float | None:
    """Nats that the misses may have bought; None where no law says, or a miss is too large for it."""
    if worth is None or not all(abs(excess) <= MOST_MISS for excess in misses.values()):
        return None
    return sum(worth[name] * abs(math.log1p(excess)) for name, excess in misses.items())


def family(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the verdict says of one family: its shape, and means over its seeds."""
    first = runs[0]

    def mean(key: str) -> float | None:
        values = [run[key] for run in runs if run[key] is not None]
        return float(np.mean(values)) if values else None

    return {
        "shape": first["shape"],
        "sparsity": first["sparsity"],
        "tokens": first["tokens"],
        "total_parameters": first["total_parameters"],
        "active_parameters": first["active_parameters"],
        "loss": mean_interval([run["test_loss"] for run in runs]),
        "bits_per_byte": mean("test_bits_per_byte"),
        "flops": mean("flops"),
        "seconds": mean("seconds"),
        "joules": mean("joules"),
        "learning_rate": first["recipe"]["learning_rate"],
        "checkpoint": None,  # its place, which the study knows
        "runs": [run["hash"] for run in runs],
    }
