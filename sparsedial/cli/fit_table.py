"""The table of a fit: the law, the best size and tokens for a budget, the check on held-out runs, and warnings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from sparsedial.cli.law_rows import unexplained_rows
from sparsedial.cli.rows import Rows, aligned, errors_words, lines
from sparsedial.records.law import Fit, HeldOut
from sparsedial.records.optimum import Allocation, BestAt, Estimate, Parabolas, Predicted
from sparsedial.units import human_cost, human_count, human_factor, human_percent, signed

SAME = 1.1  # FLOPs per parameter and token whose ends differ by less are one count: budgets are rounded
NOTED = 1.05  # a value this factor beyond the runs is said to be
GUESSES = {"last_budget_shape_kept": "the last budget's best shape", "linear_in_log_compute": "a straight line"}


def fit_table(fit: Fit) -> str:
    """All rows of a fit."""
    dropped, notes = _dropped_rows(fit), [("note", words) for words in fit.notes]
    if fit.refused or fit.form is None:
        return "\n".join(f"{name}: {words}" for name, words in (("refused", fit.refused), *dropped, *notes))
    rows = [("form", fit.form), ("runs", _runs_words(fit)), *dropped, *_coefficient_rows(fit)]
    if fit.intervals_reason:
        rows.append(("no intervals", fit.intervals_reason))
    rows += [("spread", f"{human_percent(fit.rmse_log_loss or 0.0, 3)} of the loss"), *unexplained_rows(fit)]
    for split in fit.allocations or ():
        rows.extend(_split_rows(split))
    if fit.allocations_reason:
        rows.append(("best size", f"not known: {fit.allocations_reason}"))
    rows.extend(_held_out_rows(fit.held_out))
    if fit.compared:
        rows.append(("compared by", f"{fit.compared.rule}; the simplest form near the best is used"))
        for name, trial in fit.compared.forms.items():
            rows.append((f"  {name}", trial.refused or human_percent(trial.rms_log_error or 0.0, 3)))
    if fit.predicted:
        rows.extend(_predicted_rows(fit.predicted))
    return lines([*rows, *notes])


def predicted_table(predicted: Predicted) -> str:
    """What a law predicted of a table."""
    return lines([("law", f"{predicted.form} ({predicted.source})"), *_predicted_rows(predicted)])


def _runs_words(fit: Fit) -> str:
    cells = f" in {fit.cells} cells" if fit.cells < fit.runs else ""
    groups = f" in {fit.independent_runs} independent groups" if fit.independent_runs < fit.runs else ""
    return f"{fit.runs}{cells}{',' if cells and groups else ''}{groups}"


def _dropped_rows(fit: Fit) -> Rows:
    rows = "row" if fit.dropped_rows == 1 else "rows"
    return [("dropped", f"{fit.dropped_rows} {rows}: {fit.dropped_reason}")] if fit.dropped_rows else []


def _coefficient_rows(fit: Fit) -> Iterator[tuple[str, str]]:
    share = human_percent(fit.confidence or 0.0)
    known = [(name, value, fit.intervals[name]) for name, value in fit.coefficients.items()]
    words = aligned(
        [[f"{value:.4g}", "" if ends is None else f"[{ends[0]:.4g}, {ends[1]:.4g}]"] for _, value, ends in known]
    )
    if any(ends for *_, ends in known):
        yield "coefficients", f"with {share} intervals"
    for (name, *_), line in zip(known, words, strict=True):
        undetermined = name in (fit.undetermined or ())
        partners = fit.open_coefficients.get(name)
        trades = f": it can trade with {', '.join(partners)}" if partners else ""
        yield f"  {name}", f"{line}  not determined by these runs{trades}" if undetermined else line
    for name, prior in fit.priors.items():
        low, high = prior.value * math.exp(-prior.log_spread), prior.value * math.exp(prior.log_spread)
        yield "prior", f"{name} was expected near {prior.value:g} ({low:.3g} to {high:.3g}, one standard deviation)"


def _split_rows(split: Allocation) -> Iterator[tuple[str, str]]:
    where = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in split.held.items())
    yield "best split", f"{f'at {where}; ' if where else ''}FLOPs = {_factor_words(split)}"
    if split.size_exponent is not None and split.tokens_exponent is not None:
        curves = split.parabolas
        cells = [
            _exponent_cells(split.size_exponent, curves and curves.size_exponent),
            _exponent_cells(split.tokens_exponent, curves and curves.tokens_exponent),
        ]
        yield from zip(("  size", "  tokens"), aligned(cells), strict=True)
    if split.at is None:
        yield "", f"not known: {split.at_reason}"
    else:
        for best, line in zip(split.at, aligned([_best_cells(best, split) for best in split.at]), strict=True):
            yield f"  {human_cost('flops', best.flops)}", line + _beyond_words(best)
    if split.parabolas:
        yield "  parabolas", _parabola_words(split.parabolas, split.size_exponent)


def _exponent_cells(by_law: Estimate, by_parabolas: Estimate | None) -> list[str]:
    beside = [] if by_parabolas is None else ["by parabolas", *_power_cells(by_parabolas)]
    return [*_power_cells(by_law), *beside]


def _factor_words(split: Allocation) -> str:
    low, high = split.flops_factors
    size = split.size.replace("_", " ")
    rough = f" ({low:.3g} to {high:.3g} in the table, so this is rough)" if high > SAME * low else ""
    return f"{split.flops_factor:.3g} × {size} × tokens{rough}"


def _best_cells(best: BestAt, split: Allocation) -> list[str]:
    kind = "active parameters" if split.size == "active_parameters" else "parameters"
    return [
        f"{human_count(best.size.value)} {kind}",
        _ends(best.size, human_count),
        f"{human_count(best.tokens.value)} tokens",
        _ends(best.tokens, human_count),
        f"loss {best.loss.value:.4g}",
        _ends(best.loss, lambda value: f"{value:.4g}"),
    ]


def _beyond_words(best: BestAt) -> str:
    """How far an answer lies beyond the runs of the law."""
    names = {"flops": "FLOPs", "total_parameters": "size", "active_parameters": "size", "tokens": "tokens"}
    far = {names[name]: factor for name, factor in best.beyond.items() if name in names and factor > NOTED}
    listed = ", ".join(f"{name} {human_factor(factor)} times" for name, factor in far.items())
    return f"  beyond the runs: {listed}" if far else ""


def _power_cells(exponent: Estimate) -> list[str]:
    return [f"FLOPs^{exponent.value:.3f}", _ends(exponent, lambda value: f"{value:.3f}")]


def _ends(estimate: Estimate, words: Callable[[float], str]) -> str:
    """`[low, high]`, nothing where neither is known."""
    if estimate.low is None and estimate.high is None:
        return ""
    low, high = ("?" if end is None else words(end) for end in (estimate.low, estimate.high))
    return f"[{low}, {high}]"


def _parabola_words(found: Parabolas, by_law: Estimate | None) -> str:
    left_out = f" ({found.budgets_left_out} have none)" if found.budgets_left_out else ""
    words = f"through the minima of {len(found.minima)} budgets{left_out}; biased even without noise"
    if found.size_exponent_on_law is None or by_law is None:
        return f"{words}, the more the wider the range of sizes"
    shift = found.size_exponent_on_law - by_law.value
    return f"{words}, here by {signed(shift)} for size, as the law's own losses of these runs show"


def _held_out_rows(held: HeldOut | None) -> Iterator[tuple[str, str]]:
    if held is None:
        return
    runs = "one run" if held.runs == 1 else f"{held.runs} runs"
    errors = errors_words(held.median_relative_error, held.max_relative_error)
    missed = f"predicted within {errors}" if held.runs > 1 else f"missed by {human_percent(held.max_relative_error, 3)}"
    yield "held out", f"{runs}{_budget_words(held.budgets_flops)}, {missed}"
    if held.law_on_the_same is not None:
        cells = [("the law", held.law_on_the_same), *((GUESSES[name], error) for name, error in held.baselines.items())]
        yield "  best run", "missed by " + ", ".join(f"{name} {human_percent(error, 3)}" for name, error in cells)


def _budget_words(budgets: Sequence[float]) -> str:
    if not budgets:
        return ""
    if len(budgets) == 1:
        return f" of one budget ({human_cost('flops', budgets[0])})"
    return f" of {len(budgets)} budgets ({budgets[0]:.3g} to {budgets[-1]:.3g} FLOPs)".replace("e+", "e")


def _predicted_rows(predicted: Predicted) -> Rows:
    beyond = f", {predicted.rows_beyond} of them beyond the range of the law's runs" if predicted.rows_beyond else ""
    rows = [("predicted", f"{predicted.rows} rows of {predicted.table}{beyond}")]
    if predicted.median_relative_error is not None and predicted.max_relative_error is not None:
        errors = errors_words(predicted.median_relative_error, predicted.max_relative_error)
        rows.append(("", f"their losses are missed by {errors}"))
    if predicted.intervals_reason:
        rows.append(("no intervals", predicted.intervals_reason))
    return [*rows, *(("note", words) for words in predicted.notes), ("written", predicted.out)]
