"""The findings of a study in sentences, which pictures and page share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sparsedial.records.law import HeldOut
from sparsedial.records.plan import Crossover
from sparsedial.records.study import LawSummary, Study
from sparsedial.records.text import TextSummary
from sparsedial.records.token_selection import StudyTokens
from sparsedial.records.verdict import Side, Verdict, Verdicts
from sparsedial.shape.shape import Shape
from sparsedial.showing.rows import near_optimal_experts
from sparsedial.units import OPTIMIZERS, human_bytes, human_cost, human_count, human_percent, human_seconds

CURRENCIES = {"flops": "FLOPs", "seconds": "seconds", "joules": "joules"}
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
BASELINES = {
    "last_budget_shape_kept": "keep the last budget's best shape",
    "linear_in_log_compute": "a straight line in log FLOPs",
}


def power_of_ten(value: float) -> str:
    """A large number as people write it: `2×10¹²`."""
    mantissa, exponent = f"{value:.1e}".split("e")
    mantissa = mantissa.removesuffix(".0")
    raised = "10" + str(int(exponent)).translate(_RAISED)
    return raised if mantissa == "1" else f"{mantissa}×{raised}"


def cost(currency: str, value: float | None) -> str:
    """A cost with its unit, or a dash where it is not known."""
    if value is None:
        return "–"
    return f"{power_of_ten(value)} FLOPs" if currency == "flops" else human_cost(currency, value)


def experts_listing(counts: Sequence[int]) -> str:
    """`dense`, `16 and 32 experts` or `dense, 4 and 8 experts`."""
    return listing([str(count) if count else "dense" for count in counts]) + (" experts" if max(counts) else "")


def listing(words: Sequence[str]) -> str:
    """`a`, `a and b` or `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def metered(verdicts: Verdicts) -> bool:
    """Whether joules were measured, not estimated."""
    sides = (verdicts.joules.sparse, verdicts.joules.dense)
    return verdicts.joules.basis == "measured" and any(side and side.joules is not None for side in sides)


def headline(verdicts: Verdicts) -> str:
    """The whole finding in one sentence."""
    flops, seconds = _outcome(verdicts.flops), _outcome(verdicts.seconds)
    if flops == seconds:
        sentence = f"{flops} at equal FLOPs {'or' if verdicts.flops.gap is None else 'and'} at equal seconds"
    else:
        sentence = f"{flops} at equal FLOPs; {seconds} at equal seconds"
    if metered(verdicts):
        sentence += f"; {_outcome(verdicts.joules)} at equal joules"
    return sentence[0].upper() + sentence[1:]


def _outcome(verdict: Verdict) -> str:
    if verdict.gap is None:
        return "not compared"
    return {"sparse": "sparse wins", "dense": "dense wins", "undecided": "undecided"}[verdict.winner]


def verdict_sentence(verdicts: Verdicts, currency: str) -> str:
    """One currency's verdict with its numbers, its interval and its reason."""
    verdict, name = verdicts.of(currency), CURRENCIES[currency]
    gap, sides = verdict.gap, verdict.sides()
    if gap is None or sides is None:
        return f"At equal {name} nothing was compared: {verdict.reason}."
    sparse, dense = (f"{side.loss.mean:.3f}" for side in sides)
    if verdict.winner == "undecided":
        losses = f"sparse {sparse}, dense {dense}, {verdict.seeds} seeds each"
        return f"At equal {name} the verdict is undecided: {verdict.reason} ({losses})."
    won = verdict.winner == "sparse"
    low, high = (gap.low, gap.high) if won else (-gap.high, -gap.low)
    share = human_percent(abs(gap.mean) / max(side.loss.mean for side in sides))
    return (
        f"At equal {name} {verdict.winner} wins by {abs(gap.mean):.3f} nats per token ({share};"
        f" {human_percent(verdict.confidence)} interval {low:.3f} to {high:.3f}, {verdict.seeds} seeds each):"
        f" {sparse if won else dense} against {dense if won else sparse}."
        f"{optimizer_words(verdict)}{missed_words(verdict)}{_which_joules(verdict, currency)}"
    )


def optimizer_words(verdict: Verdict) -> str:
    """The optimizers of a verdict's models, where one of them is not AdamW."""
    sides = verdict.sides()
    if sides is None or all(side.optimizer == "adamw" for side in sides):
        return ""
    sparse, dense = (OPTIMIZERS[side.optimizer] for side in sides)
    return (
        f" Both are trained with {sparse}."
        if sparse == dense
        else f" Sparse is trained with {sparse}, dense with {dense}."
    )


def missed_words(verdict: Verdict) -> str:
    """The nats that a missed cost may explain, where the verdict stands without them."""
    miss = verdict.cost_miss
    if miss is None or miss.worth_nats is None:
        return ""
    return f" But {miss.words}; by the law that is worth {miss.worth_nats:.3f} nats."


def _which_joules(verdict: Verdict, currency: str) -> str:
    """Which runs a verdict at equal joules is of, and whether they were metered."""
    if currency != "joules":
        return ""
    if verdict.basis == "measured":
        return " These are the runs at equal seconds, by the joules that a meter counted."
    return " These runs were not metered: this is the result at equal seconds, times watts."


def held_equal(verdicts: Verdicts, currency: str, optimizer: bool = False) -> str | None:
    """What the two sides of a verdict had in common, with the measured costs; `optimizer`: whether that was chosen."""
    verdict = verdicts.of(currency)
    sides = verdict.sides()
    if sides is None:
        return None
    others = verdicts.flops.dense if currency != "flops" else None
    shared = " The dense runs are those of equal FLOPs." if others and others.runs == sides[1].runs else ""
    costs = [side.cost(currency) for side in sides]
    chosen = ["size", "tokens", "number of experts", *(["optimizer"] if optimizer else []), "learning rate"]
    what = {
        "flops": "training FLOPs by count (not time)",
        "seconds": "measured seconds of training, alone on the machine and in turns",
        "joules": "measured seconds of training; the joules of these runs are compared"
        if metered(verdicts)
        else "seconds of training times watts",
    }[currency]
    return (
        f"Held equal: {what} ({_spent(currency, verdict, costs)}), text, tokenizer, context, batch, top-k and seeds."
        f" Chosen for each family: {listing(chosen)}."
        f" The losses are those of test text that was not used for any choice.{shared}"
    )


def _spent(currency: str, verdict: Verdict, costs: Sequence[float | None]) -> str:
    """The budget of a verdict, and what each side spent where that reads differently."""
    budget = cost(currency, verdict.budget.value)
    sparse, dense = (cost(currency, spent) for spent in costs)
    return budget if sparse == dense == budget else f"budget {budget}, sparse {sparse}, dense {dense}"


def near_optimal_sentence(study: Study) -> str:
    """How wide the optimum is."""
    band = study.near_optimal.sparsity
    if band is None:
        return "The width of the optimum is not known, since no law could be fitted."
    inside = near_optimal_experts(study)
    of_those = f" Tried values inside this range: {experts_listing(inside)}." if inside else ""
    low, high = (f"{end:.4g}" for end in band)
    span = f"{low} alone" if low == high else f"from {low} to {high}"
    return f"Near-optimal: expert sparsity {span} stays within 0.5 % of the best predicted loss." + of_those


def crossover_sentence(study: Study) -> str:
    """The budget from which sparse beats dense."""
    if study.crossover is not None:
        return f"By the law sparse beats dense {crossing_words(study.crossover)}."
    why = study.crossover_reason or "none is inside the range that the study can predict"
    return f"No crossover was found: {why}."


def crossing_words(found: Crossover, spelled: Callable[[str, float], str] = cost) -> str:
    """The budget of a crossover, its interval, whether it is an extrapolation, and the searched shapes."""
    currency = found.currency
    low, high = ("open" if end is None else spelled(currency, end) for end in (found.low, found.high))
    why = "" if found.interval_reason is None else f": {found.interval_reason}"
    interval = f"no interval{why}" if low == high == "open" else f"interval {low} to {high}{why}"
    where = {
        True: "inside the range that the law was fitted on",
        False: "an extrapolation outside the range that the law was fitted on",
        None: "and the range that the law was fitted on is not known",
    }[found.within_fitted_range]
    searched = f"; searched: {found.searched}" if found.searched else ""
    return f"from {spelled(currency, found.value)} on ({interval}), {where}{searched}"


def law_sentence(law: LawSummary) -> str:
    """How well the law predicts, compared with simple guesses."""
    if law.refused:
        return f"No law was fitted: {law.refused}. The results below rest on measured cells only."
    held_out = law.held_out
    if held_out is None:
        return f"The law ({law.form}) was not checked on a held-out budget; do not extrapolate with it."
    budget = " and ".join(f"{power_of_ten(value)} FLOPs" for value in held_out.budgets_flops)
    cells = "one cell" if held_out.runs == 1 else f"{held_out.runs} cells"
    sentence = (
        f"The law ({law.form}), fitted to the smaller budgets, predicted the {cells} of {budget}"
        f" with a relative error of {human_percent(held_out.median_relative_error)} in the median,"
        f" {human_percent(held_out.max_relative_error)} at worst."
    )
    regret = held_out.regret_of_predicted_best
    if regret is not None:
        missed = f"was {regret:.4f} nats above the best" if f"{regret:.4f}" != "0.0000" else "was the best"
        sentence += f" The cell that it predicted to be the best there {missed}."
    return f"{sentence} {_against_baselines(held_out)}".rstrip()


def comparable_error(held_out: HeldOut) -> float:
    """The law's median error on each sparsity's best cell, where the check has it, as for the guesses."""
    value = held_out.law_on_the_same
    return held_out.median_relative_error if value is None else value


def _against_baselines(held_out: HeldOut) -> str:
    error = comparable_error(held_out)
    if not held_out.baselines:
        return ""
    stated = listing([f"“{BASELINES[name]}” by {human_percent(value)}" for name, value in held_out.baselines.items()])
    ahead = [BASELINES[name] for name, value in held_out.baselines.items() if value <= error]
    outcome = f"“{listing(ahead)}” did as well or better" if ahead else "the law did better than these simple guesses"
    return f"It missed the lowest loss of each sparsity by {human_percent(error)} in the median, {stated}: {outcome}."


def sparsity_words(shape: Shape, sparsity: float) -> str:
    """`dense`, or `0.9375 (2 of 32 experts)`."""
    return f"{sparsity:.4g} ({shape.top_k} of {shape.experts} experts)" if shape.experts else "dense"


def shape_words(side: Side) -> str:
    """`width 64, 32 experts, 2 chosen and 1 shared`."""
    shape = side.shape
    if not shape.experts:
        return f"width {shape.d_model}, dense"
    shared = f" and {shape.shared_experts} shared" if shape.shared_experts else ""
    return f"width {shape.d_model}, {shape.experts} experts, {shape.top_k} chosen{shared}"


def text_sentence(text: TextSummary) -> str:
    """A sentence about the text of a study."""
    parts = [
        human_bytes(text.bytes), f"{text.documents} documents", f"{human_count(text.train_tokens)} training tokens"
    ]  # fmt: skip
    python = f" The built-in text: the standard library of Python {text.python_version}." if text.python_version else ""
    return f"{listing(parts)}, tokenizer {text.tokenizer.name}.{python}"


def share_sentence(tokens: StudyTokens | None) -> str | None:
    """What the runs' loss counted, and what choosing that cost beside them; None where it counted all positions."""
    if tokens is None:
        return None
    cost = tokens.reference.cost
    return (
        f"In every run the loss counted {human_percent(tokens.share)} of each step's tokens: those whose loss is"
        f" highest above a reference model's. That model took {power_of_ten(cost.flops)} FLOPs and"
        f" {human_seconds(cost.seconds)}, which no run counts. Validation and test loss are of all tokens."
    )


def overlap_sentence(text: TextSummary) -> str:
    """How much of the held-out text also occurs in the training text."""
    overlap = text.overlap
    shares = {"validation": overlap.validation, "test": overlap.test}
    known = [f"{human_percent(share)} of the {split} text's" for split, share in shares.items() if share is not None]
    if not known:
        return "The overlap between the splits was not measured."
    return (
        "Exact duplicates were removed from validation and test."
        f" After that, {listing(known)} {overlap.window_bytes}-byte windows also occur in the training text."
    )
