"""The iso-FLOP method: a parabola through the runs of each budget, and a power law through their lowest points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsedial.law.bracket import end_of
from sparsedial.law.fit import Rows
from sparsedial.law.law import Law
from sparsedial.law.splits import Split
from sparsedial.records.optimum import Estimate, Minimum, Parabolas

LEAST_SIZES = 3
BIAS = (
    "parabolas shift the minima even without noise: where size and tokens have different exponents, and more on wider"
    " grids of sizes; where the grids' centres drift from the best size, the exponent is shifted too"
    " (Czech et al., arXiv 2603.22339)"
)


@dataclass(frozen=True, kw_only=True)
class _Line:
    """The runs of one budget that surround a minimum."""

    flops: float
    size: np.ndarray  # in logs, like tokens
    tokens: np.ndarray
    loss: np.ndarray
    weight: np.ndarray

    def minima(self, x: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """Where the parabolas through these losses are lowest, inside the tried range. Shapes: losses [k, n], to [k]"""
        slope, bend = self._fitted(x, losses)[1:]
        low, high = x.min() - x.mean(), x.max() - x.mean()
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = np.clip(-slope / (2 * bend), low, high)
        return x.mean() + np.where(bend > 0, inside, np.where(slope > 0, low, high))

    def _fitted(self, x: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """Level, slope and bend, about the mean of x. Shapes: losses [k, n], to [3, k]"""
        root = np.sqrt(self.weight)
        powers = np.stack([np.ones_like(x), x - x.mean(), (x - x.mean()) ** 2], axis=1)
        return np.linalg.lstsq(powers * root[:, None], (losses * root).T, rcond=None)[0]

    def residuals(self) -> np.ndarray:
        """Relative distances of the losses from the parabola."""
        x = self.size - self.size.mean()
        level, slope, bend = self._fitted(self.size, self.loss[None])[:, 0]
        return self.loss / (level + slope * x + bend * x**2) - 1


def parabolas(law: Law, rows: Rows, split: Split) -> tuple[Parabolas | None, str | None]:
    """The method on the rows of a split, or the reason why it cannot be used there."""
    if "flops" not in rows:
        return None, "the table has no column 'flops' to tell the runs of one budget by"
    lines, left_out = _lines(rows, split, rows["loss"])
    if len(lines) < 2:
        return None, (
            f"{len(lines)} of the {len(lines) + left_out} budgets have three sizes with the best between the others;"
            " parabolas need two"
        )
    draws = _draws(lines, len(law.samples), law.seed)
    exponents = [_exponents(lines, axis, draws) for axis in ("size", "tokens")]
    size, tokens = (_estimate(values, law.confidence) for values in exponents)
    ideal, _ = _lines(rows, split, law.loss(**rows))
    return Parabolas(
        size_exponent=size,
        tokens_exponent=tokens,
        minima=tuple(
            Minimum(
                flops=line.flops,
                size=float(np.exp(line.minima(line.size, line.loss[None])[0])),
                tokens=float(np.exp(line.minima(line.tokens, line.loss[None])[0])),
                runs=len(line.loss),
            )
            for line in lines
        ),
        budgets_left_out=left_out,
        size_exponent_on_law=float(_exponents(ideal, "size", _own(ideal))[0]) if len(ideal) > 1 else None,
        bias=BIAS,
    ), None


def _lines(rows: Rows, split: Split, loss: np.ndarray) -> tuple[list[_Line], int]:
    """The budgets whose best size lies between others, with these losses; and how many have none."""
    weight = rows["weight"] if "weight" in rows else np.ones(len(loss))
    lines, left_out = [], 0
    for budget in np.unique(rows["flops"][split.picked]).tolist():
        at = split.picked & (rows["flops"] == budget)
        size, tokens = np.log(rows[split.size][at]), np.log(rows["tokens"][at])
        line = _Line(flops=budget, size=size, tokens=tokens, loss=loss[at], weight=weight[at])
        if _has_minimum(line):
            lines.append(line)
        else:
            left_out += 1
    return lines, left_out


def _has_minimum(line: _Line) -> bool:
    """Three sizes, the best of them inside, and parabolas that are lowest inside."""
    sizes = np.unique(line.size)
    if len(sizes) < LEAST_SIZES or len(np.unique(line.tokens)) < LEAST_SIZES:
        return False
    if end_of(line.size[np.argmin(line.loss)], line.size) is not None:
        return False
    lowest = [(line.minima(x, line.loss[None])[0], x) for x in (line.size, line.tokens)]
    return all(x.min() < at < x.max() for at, x in lowest)


def _own(lines: list[_Line]) -> list[np.ndarray]:
    return [line.loss[None] for line in lines]


def _draws(lines: list[_Line], count: int, seed: int) -> list[np.ndarray]:
    """The losses of each line, and `count` times these with the scatter of all lines about their parabolas."""
    freedom = sum(len(line.loss) - 3 for line in lines)
    if count < 2 or freedom < 1:
        return _own(lines)
    squares = sum(float(np.sum(line.residuals() ** 2)) for line in lines)
    random = np.random.default_rng(seed)
    scatter = np.sqrt(squares / freedom)
    noise = [random.normal(0, scatter, (count, len(line.loss))) for line in lines]
    return [np.vstack([line.loss, line.loss * (1 + drawn)]) for line, drawn in zip(lines, noise, strict=True)]


def _exponents(lines: list[_Line], axis: str, losses: list[np.ndarray]) -> np.ndarray:
    """The slope of log minimum over log compute, of every draw. Shapes: [draws]"""
    minima = np.stack(
        [line.minima(getattr(line, axis), drawn) for line, drawn in zip(lines, losses, strict=True)], axis=1
    )
    compute = np.log([line.flops for line in lines])
    centred = compute - compute.mean()
    return minima @ centred / (centred @ centred)


def _estimate(values: np.ndarray, confidence: float) -> Estimate:
    """The first value, with the interval of the others."""
    if len(values) == 1:
        return Estimate(value=float(values[0]), low=None, high=None)
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[1:], [tail, 1 - tail])
    return Estimate(value=float(values[0]), low=float(low), high=float(high))
