"""The fence of a law: what it may be asked about, by its form, its runs and the coefficients that they leave open."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sparsedial.errors import UserError
from sparsedial.law.counting import COUNTS, size_of
from sparsedial.law.form import Columns
from sparsedial.law.forms import granularity
from sparsedial.law.law import Law
from sparsedial.records.quantities import Span
from sparsedial.units import bare_exponent, human_count

FAR = 2.0  # beyond the runs by more than this factor, an answer is an extrapolation
INSIDE = 1.2  # what still counts as within the runs, since shapes come in steps
ONE = 1.02  # values that differ by less are one: tokens are whole steps
RUNS = "the law's runs, "  # how a bound that they set begins
AXES = {"size": tuple(COUNTS), "sparsity": ("experts",)}  # what is held on an axis; else the variable of its name
ONE_VALUED = (*COUNTS, "tokens_per_parameter", "active_experts", "granularity")  # of one value, no effect is known
SINGULAR = ("d_model", "granularity", "shared_share")
WORDS = {
    "flops": "FLOPs",
    "total_parameters": "total parameters",
    "active_parameters": "active parameters",
    "tokens_per_parameter": "tokens per parameter",
    "d_model": "width (d_model)",
    "active_experts": "active experts",
    "shared_share": "share of shared experts",
}


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A span that a law is never asked beyond."""

    axis: str
    span: Span
    why: str

    @property
    def name(self) -> str:
        """The bound in words."""
        return f"{RUNS}{self.words}"

    @property
    def words(self) -> str:
        """The span in words."""
        return span_words(self.axis, self.span)


@dataclass(frozen=True, kw_only=True)
class Fence:
    """What a law may be asked about; `says` are the reasons, in sentences for the first lines of an answer."""

    ratio: float | None  # the only experts/top_k; None where it tells several apart
    tokens: float | None  # the only number of tokens
    holds: tuple[Hold, ...]
    says: tuple[str, ...]
    ranges: Mapping[str, Span]  # of its runs, sparsity as experts/top_k

    def covers(self, ratios: Any) -> Any:
        """Whether models with these experts/top_k may be asked about at all."""
        return np.abs(ratios - (self.ratio or 1)) < 1e-3 * ratios if self.ratio else np.ones_like(ratios, dtype=bool)

    @property
    def saw_dense(self) -> bool:
        """Whether dense models were among the runs, as far as is known."""
        return self.ranges.get("experts", (1.0, 1.0))[0] < ONE

    @property
    def no_dense(self) -> str | None:
        """Why the law is not asked about dense models, where it is not."""
        if self.ratio is not None:
            return self.says[0] if self.ratio > ONE else None
        held = next((hold for hold in self.holds if hold.axis == "experts" and hold.span[0] > ONE), None)
        return held and f"the law is not asked about dense models: {held.why}, and {held.words} is what they had"

    @property
    def no_best(self) -> str | None:
        """Why the law cannot say which sparsity is best, where it knows one alone."""
        return None if self.ratio is None else self.says[0]

    @property
    def no_sparse(self) -> str | None:
        """Why the law is not asked about sparse models, where it is not."""
        return self.says[0] if self.ratio is not None and self.ratio < ONE else None

    def near(self, axis: str, values: Any, factors: Any) -> Any:
        """Whether values are near enough to the runs to be recommended first; `factors` are those of `beyond`."""
        unseen = np.asarray(values < ONE) if axis == "experts" and not self.saw_dense else False
        return (factors <= FAR) & ~np.asarray(unseen)

    def beyond(self, measured: Mapping[str, Any]) -> dict[str, Any]:
        """By axis, the factor by which values lie beyond the runs; 1 inside. Values are numbers or columns."""
        return {axis: _factor(measured[axis], span) for axis, span in self.ranges.items() if axis in measured}


def measured(law: Law, shapes: Any, tokens: Any, flops_per_token: Callable[[], Any], names: Collection[str]) -> Columns:
    """What a law's runs have ranges of, for trainings: those of `names`, counted as the law counts; vectorised."""
    counting = law.counting or law.as_form.counting
    counted = law.as_form.counted
    rules: dict[str, Callable[[], Any]] = {
        **{name: partial(rule, shapes) for name, rule in counted.items()},
        **{name: partial(size_of, shapes, name, counting) for name in COUNTS},
        "tokens": lambda: tokens,
        "flops": lambda: flops_per_token() * tokens,
        "experts": lambda: shapes.experts_per_choice,
        "granularity": lambda: granularity(shapes),
        "tokens_per_parameter": lambda: tokens / size_of(shapes, law.as_form.size, counting),
        "d_model": lambda: shapes.d_model,
    }
    return {name: rules[name]() for name in names if name in rules}


def fence(law: Law) -> Fence:
    """What a law may be asked about.

    Raises: UserError for a law that cannot be asked, since it does not tell the tokens of its runs.
    """
    spans = {name: span for name, span in law.fitted_range.items() if name != "sparsity"}
    if "experts" not in spans and "sparsity" in law.fitted_range:
        spans["experts"] = _ratios(law.fitted_range["sparsity"])
    if spans.get("active_parameters") == spans.get("total_parameters"):
        spans.pop("total_parameters" if law.as_form.size == "active_parameters" else "active_parameters", None)
    ratio, only_ratio = _only_ratio(law, spans.get("experts"))
    tokens, only_tokens = _only_tokens(law, spans.get("tokens"))
    axes = open_axes(law)
    free = [name for name in spans if not (name == "experts" and ratio) and not (name == "tokens" and tokens)]
    holds = [
        Hold(axis=name, span=spans[name], why=f"its runs leave {', '.join(names)} open")
        for axis, names in axes.items()
        for name in AXES.get(axis, (axis,))
        if name in free
    ]
    inside = f"{_opened(axes)}, so it is asked inside the range of its runs: {_listed(holds)}" if holds else None
    single = [
        Hold(axis=name, span=spans[name], why=f"all its runs had {span_words(name, spans[name])}")
        for name in ONE_VALUED
        if name in free and _is_one(spans[name]) and name not in {hold.axis for hold in holds}
    ]
    alone = f"all runs of this law had {_listed(single)}, so it is asked about that alone" if single else None
    holds += single
    if "sparsity" in law.as_form.keeps_within and "sparsity" not in axes and not ratio and "experts" in spans:
        why = "its form tells nothing of sparser models than its runs'"
        holds.append(Hold(axis="experts", span=spans["experts"], why=why))
    return Fence(
        ratio=ratio,
        tokens=tokens,
        holds=tuple(holds),
        says=tuple(line for line in (only_ratio, only_tokens, alone, inside) if line),
        ranges=spans,
    )


def _ratios(sparsity: Span) -> Span:
    return 1 / (1 - sparsity[0]), 1 / (1 - sparsity[1])


def _is_one(span: Span) -> bool:
    return span[1] <= ONE * span[0]


def kind_words(ratio: float) -> str:
    """Models with so many experts per chosen one."""
    return "dense models" if ratio < ONE else f"models of sparsity {1 - 1 / ratio:.4g}"


def _only_ratio(law: Law, span: Span | None) -> tuple[float | None, str | None]:
    """The only experts/top_k that a law may be asked about, and why."""
    form = law.as_form
    if span is not None and _is_one(span):
        ratio = math.sqrt(span[0] * span[1])
        had = "were dense" if ratio < ONE else f"had sparsity {1 - 1 / ratio:.4g}"
        return ratio, f"all runs of this law {had}, so it plans {kind_words(ratio)} alone"
    if form.knows_sparsity:
        return None, None
    if span is None:
        only = f"so it plans {kind_words(form.unsaid_ratio)} alone"
        return form.unsaid_ratio, f"this law has no term for sparsity, and its table tells none, {only}"
    told = f"this law has no term for sparsity, though its runs had {span_words('experts', span)}"
    return span[0], f"{told}: it plans the densest of them alone"


def _only_tokens(law: Law, span: Span | None) -> tuple[float | None, str | None]:
    """The only number of tokens that a law may be asked about, and why."""
    has_term = "tokens" in law.as_form.variables
    if span is None and not has_term:
        raise UserError(
            f"the law has no term for tokens ({law.form}), and its file does not tell how many its runs had",
            hint="fit it again with a column 'tokens', or with <columns> tokens=130e9 if all runs had 130 billion",
        )
    if span is None or (has_term and not _is_one(span)):
        return None, None
    if not _is_one(span):
        raise UserError(
            f"the law has no term for tokens ({law.form}), and its runs had {span_words('tokens', span)}, which it"
            " cannot tell apart",
            hint="fit it to the runs of one token count with <where>, or take a form with tokens",
        )
    tokens = math.sqrt(span[0] * span[1])
    return tokens, f"all runs of this law had {human_count(tokens)} tokens, so it plans at that number alone"


def open_axes(law: Law) -> dict[str, list[str]]:
    """The axes on which open coefficients decide, with their names.

    A scale of uncertain height leaves the slope known, so it counts only where its interval reaches 0. Open both in
    size and in tokens, a law knows at most the line of its runs, so their ratio is an axis as well.
    """
    form = law.as_form
    low_high = {name: law.intervals.get(name, (0.0, 0.0)) for name in form.scales}
    drives = [
        name
        for name in law.undetermined
        if name in form.exponents or (name in form.scales and low_high[name][0] <= 0 <= low_high[name][1])
    ]
    axes = {axis: found for axis, names in form.governs.items() if (found := [n for n in names if n in drives])}
    if {"size", "tokens"} <= set(axes):
        axes["tokens_per_parameter"] = [*axes["size"], *axes["tokens"]]
    return axes


def _opened(axes: Mapping[str, list[str]]) -> str:
    names = dict.fromkeys(name for found in axes.values() for name in found)
    return f"the runs of this law leave {', '.join(names)} open"


def _listed(holds: list[Hold]) -> str:
    return ", ".join(span_words(hold.axis, hold.span) for hold in holds)


def span_words(axis: str, span: Span) -> str:
    """A range in words; experts/top_k are said as sparsity."""
    name, amounts = "sparsity" if axis == "experts" else WORDS.get(axis, axis), span_amounts(axis, span)
    one = span[0] == span[1] and axis not in ("experts", *SINGULAR)
    return f"{amounts} {name}" if one else f"{name} {amounts}"


def span_amounts(axis: str, span: Span) -> str:
    """A range without its name."""
    low, high = (_amount(axis, end) for end in span)
    if not span[0]:
        return f"up to {high}"
    return low if low == high else f"{low} to {high}"


def _amount(axis: str, value: float) -> str:
    if axis in (*COUNTS, "tokens"):
        return human_count(value)
    return f"{1 - 1 / value:.4g}" if axis == "experts" else bare_exponent(f"{value:.3g}")


def slack(axis: str) -> float:
    """The factor by which a value may lie beyond a span that is held: shapes come in steps, sparsities are exact."""
    return 1.001 if axis == "experts" else INSIDE


def _factor(values: Any, span: Span) -> Any:
    low, high = span
    values = np.asarray(values, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        above = values / high if high > 0 else np.where(values > 0, np.inf, 1.0)
        below = np.where(values > 0, low / values, 1.0)
    return np.maximum(np.maximum(above, below), 1.0)
