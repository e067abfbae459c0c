"""What a study found, in plain words: the sentences that pictures and page share."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from sparsedial.units import human_bytes, human_cost, human_count

Row = Mapping[str, Any]

CURRENCIES = {"flops": "FLOPs", "seconds": "seconds", "joules": "joules"}
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


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


def percent(share: float, digits: int = 2) -> str:
    """A share in percent, two significant digits: `0.61 %`."""
    return f"{float(f'{100 * share:.{digits}g}'):g}\N{NO-BREAK SPACE}%"


def sparsity_name(experts: int) -> str:
    """`dense` or `32 experts`."""
    return f"{experts} experts" if experts else "dense"


def experts_listing(counts: Sequence[int]) -> str:
    """`dense`, `16 and 32 experts` or `dense, 4 and 8 experts`."""
    return listing([str(count) if count else "dense" for count in counts]) + (" experts" if max(counts) else "")


def listing(words: Sequence[str]) -> str:
    """`a`, `a and b` or `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def finished(study: Row) -> list[Row]:
    """The cells that have a loss."""
    return [row for row in study["cells_table"] if row["status"] == "finished" and row["loss"] is not None]


def budgets(study: Row) -> list[float]:
    """The budgets that have a finished cell, lowest first."""
    return sorted({row["budget_flops"] for row in finished(study)})


def experts_tried(study: Row) -> list[int]:
    """The numbers of experts of the study, dense (0) first."""
    return sorted({row["experts"] for row in study["cells_table"]})


def line_of(study: Row, budget: float, experts: int) -> list[Row]:
    """The finished cells of one sparsity at one budget, smallest active size first."""
    rows = [row for row in finished(study) if (row["budget_flops"], row["experts"]) == (budget, experts)]
    return sorted(rows, key=lambda row: row["active_parameters"])


def best_of(study: Row, budget: float, experts: int) -> Row | None:
    """The best cell of one sparsity at one budget."""
    return min(line_of(study, budget, experts), key=lambda row: row["loss"], default=None)


def open_side(study: Row, budget: float, experts: int) -> str | None:
    """On which side the best cell is the last one tried: "smaller", "larger", or None; diverged cells count as bad."""
    rows = [row for row in study["cells_table"] if (row["budget_flops"], row["experts"]) == (budget, experts)]
    rows.sort(key=lambda row: row["active_parameters"])
    losses = [math.inf if row["loss"] is None else row["loss"] for row in rows]
    best = losses.index(min(losses))
    if best == 0:
        return "smaller"
    return "larger" if best == len(losses) - 1 else None


def best_sparsity(study: Row, budget: float) -> Row:
    """The best cell of one budget."""
    return min((row for row in finished(study) if row["budget_flops"] == budget), key=lambda row: row["loss"])


def advantages(study: Row) -> list[tuple[float, float]]:
    """Per budget, by how much the best sparse cell is below the best dense cell, in nats per token."""
    pairs = []
    for budget in budgets(study):
        best = [best_of(study, budget, experts) for experts in experts_tried(study)]
        dense = [row["loss"] for row in best if row and not row["experts"]]
        sparse = [row["loss"] for row in best if row and row["experts"]]
        if dense and sparse:
            pairs.append((budget, dense[0] - min(sparse)))
    return pairs


def seed_spread(study: Row) -> float | None:
    """Standard deviation of the loss between seeds, pooled over the groups of equal verdict runs; None without any."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in study.get("verdict_runs") or []:
        if row["status"] == "finished" and row["loss"] is not None:
            groups.setdefault((row["currency"], row["family"], row["d_model"], row["experts"]), []).append(row["loss"])
    several = [losses for losses in groups.values() if len(losses) > 1]
    if not several:
        return None
    squares = sum(statistics.variance(losses) * (len(losses) - 1) for losses in several)
    return math.sqrt(squares / sum(len(losses) - 1 for losses in several))


def metered(study: Row) -> bool:
    """Whether joules were measured rather than stated."""
    verdict = study["verdict"]["joules"]
    return verdict["basis"] == "measured" and any(
        side and side["joules"] is not None for side in (verdict["sparse"], verdict["dense"])
    )


def headline(study: Row) -> str:
    """The whole finding in one sentence."""
    parts = {name: _outcome(study["verdict"][name]["winner"]) for name in ("flops", "seconds")}
    if parts["flops"] == parts["seconds"]:
        sentence = f"{parts['flops']} at equal FLOPs and at equal seconds"
    else:
        sentence = f"{parts['flops']} at equal FLOPs; {parts['seconds']} at equal seconds"
    if metered(study):
        sentence += f"; {_outcome(study['verdict']['joules']['winner'])} at equal joules"
    return sentence[0].upper() + sentence[1:]


def _outcome(winner: str) -> str:
    return {"sparse": "sparse wins", "dense": "dense wins", "undecided": "undecided"}[winner]


def verdict_sentence(study: Row, currency: str) -> str:
    """One currency's verdict with its numbers, its interval and its reason."""
    verdict = study["verdict"][currency]
    name = CURRENCIES[currency]
    gap, sides = verdict["gap"], (verdict["sparse"], verdict["dense"])
    if gap is None or None in sides:
        return f"At equal {name} nothing is decided: {verdict['reason']}."
    sparse, dense = (side["loss"]["mean"] for side in sides)
    losses = f"sparse {sparse:.3f}, dense {dense:.3f} nats per token on test text that nothing was chosen on"
    interval = (
        f"dense minus sparse is {signed(gap['mean'])}, {percent(verdict['confidence'])} interval"
        f" {signed(gap['low'])} to {signed(gap['high'])}, {verdict['seeds']} seeds each"
    )
    if verdict["winner"] == "undecided":
        measured = losses if "interval" in verdict["reason"] else f"{losses}; {interval}"
        return f"At equal {name} it is undecided: {verdict['reason']}. Measured: {measured}."
    by = abs(gap["mean"])
    loser = dense if verdict["winner"] == "sparse" else sparse
    return (
        f"At equal {name} the {verdict['winner']} model wins by {by:.3f} nats per token ({percent(by / loser)}):"
        f" {losses}; {interval}.{_missed(verdict)}{_estimated(verdict, currency)}"
    )


def _missed(verdict: Row) -> str:
    """What a cost off the budget may have bought, where the verdict stands without it."""
    miss = verdict.get("cost_miss")
    return f" Though {miss['words']}: by the law that is worth {miss['worth_nats']:.3f} nats." if miss else ""


def _estimated(verdict: Row, currency: str) -> str:
    """Where joules are stated watts times seconds, that they are."""
    if currency != "joules" or verdict["basis"] == "measured":
        return ""
    return " No energy meter is readable here: this is the finding at equal seconds, times stated watts."


def signed(value: float) -> str:
    """A difference in nats with its sign: `+0.118`, `−0.009`."""
    return f"{value:+.3f}".replace("-", "−")


def held_equal(study: Row, currency: str) -> str | None:
    """What the two sides of a verdict had in common, with the costs as they came out."""
    verdict = study["verdict"][currency]
    sides = [verdict["sparse"], verdict["dense"]]
    if None in sides:
        return None
    costs = [side[currency] for side in sides]
    what = {
        "flops": "training FLOPs by count (not time)",
        "seconds": "measured seconds of training, alone on the machine and in turn",
        "joules": "joules of training" if metered(study) else "seconds of training times stated watts",
    }[currency]
    spent = f"sparse {cost(currency, costs[0])}, dense {cost(currency, costs[1])}" if None not in costs else "not known"
    return (
        f"Held equal: {what}, budget {cost(currency, verdict['budget']['value'])} ({spent});"
        " also text, tokenizer, context, batch, top-k and the seeds. Free in each family: size, tokens, number of"
        " experts, and the learning rate that its model gives."
    )


def near_optimal_sentence(study: Row) -> str:
    """How wide the optimum is."""
    band = (study["near_optimal"] or {}).get("sparsity")
    if not band:
        return "How wide the optimum is, this study cannot say: it needs a law that fits."
    inside = near_optimal_experts(study)
    of_those = f" Of what was tried that holds {experts_listing(inside)}." if inside else ""
    low, high = (f"{end:.2f}" for end in band)
    span = f"of {low} alone" if low == high else f"from {low} to {high}"
    return f"Near-optimal: expert sparsity {span} stays within 0.5 % of the best predicted loss." + of_those


def near_optimal_experts(study: Row) -> list[int]:
    """The numbers of experts that were tried and lie in the near-optimal band."""
    band = (study["near_optimal"] or {}).get("sparsity")
    if not band:
        return []
    sparsities = {row["experts"]: row["sparsity"] for row in study["cells_table"]}
    return [experts for experts, value in sorted(sparsities.items()) if band[0] - 1e-6 <= value <= band[1] + 1e-6]


def crossover_sentence(study: Row) -> str:
    """From which budget on sparse beats dense."""
    found = study["crossover"]
    if found is None:
        reason = study.get("crossover_reason")
        why = f": {reason}" if reason else " inside what the study can predict"
        return f"No budget was found at which the better family changes{why}."
    return f"By the law sparse beats dense {crossing_words(found)}."


def crossing_words(found: Row) -> str:
    """From which budget on, with its interval, how far the law reaches, and what was searched."""
    currency = found["currency"]
    interval = ""
    if found["low"] is not None and found["high"] is not None:
        interval = f" (interval {cost(currency, found['low'])} to {cost(currency, found['high'])})"
    where = {
        True: "inside the range that the law was fitted on",
        False: "outside the range that the law was fitted on, so an extrapolation",
        None: "and on what range the law was fitted is not known",
    }[found["within_fitted_range"]]
    searched = f"; searched: {found['searched']}" if found.get("searched") else ""
    return f"from {cost(currency, found['value'])} on{interval}, {where}{searched}"


def law_sentence(study: Row) -> str:
    """How well the law predicts, and against whom."""
    law = study["law"]
    if law["refused"]:
        return f"The fit of a law refused: {law['refused']}. What follows rests on measured cells alone."
    held_out = law["held_out"]
    if held_out is None:
        return f"The law ({law['form']}) was not checked on a held-out budget; do not extrapolate with it."
    budget = " and ".join(f"{power_of_ten(value)} FLOPs" for value in held_out["budgets_flops"])
    error = held_out["median_relative_error"]
    sentence = (
        f"The law ({law['form']}), fitted to the smaller budgets, predicted the {held_out['runs']} cells of {budget}"
        f" with a relative error of {percent(error)} in the median,"
        f" {percent(held_out['max_relative_error'])} at worst."
    )
    regret = held_out.get("regret_of_predicted_best")
    if regret is not None:
        sentence += f" The cell that it called best there came out {regret:.4f} nats above the best."
    return f"{sentence} {_against_baselines(held_out)}".rstrip()


def comparable_error(held_out: Row) -> float:
    """The law's median error on what the plain guesses guess: each sparsity's best cell, where the check tells it."""
    value = held_out.get("law_on_the_same")
    return held_out["median_relative_error"] if value is None else value


def _against_baselines(held_out: Row) -> str:
    error = comparable_error(held_out)
    known = {name: value for name, value in held_out["baselines"].items() if value is not None}
    if not known:
        return ""
    stated = listing([f"“{baseline_name(name)}” by {percent(value)}" for name, value in known.items()])
    ahead = [baseline_name(name) for name, value in known.items() if value <= error]
    outcome = f"the law was beaten by “{listing(ahead)}”" if ahead else "the law did better than these plain guesses"
    return f"On each sparsity's best cell it missed by {percent(error)}, {stated}: {outcome}."


def baseline_name(name: str) -> str:
    """A plain guess in words."""
    return {
        "last_budget_shape_kept": "keep the last budget's best shape",
        "linear_in_log_compute": "a straight line in log FLOPs",
    }.get(name, name.replace("_", " "))


def shape_words(side: Row) -> str:
    """`width 64, 32 experts, 2 chosen and 1 shared`."""
    shape = side["shape"]
    if not shape["experts"]:
        return f"width {shape['d_model']}, dense"
    shared = f" and {shape['shared_experts']} shared" if shape.get("shared_experts") else ""
    return f"width {shape['d_model']}, {shape['experts']} experts, {shape['top_k']} chosen{shared}"


def text_sentence(study: Row) -> str:
    """Which text this was."""
    text = study["text"]
    parts = [human_bytes(text["bytes"])]
    if text.get("documents"):
        parts.append(f"{text['documents']} documents")
    parts.append(f"{human_count(text['train_tokens'])} training tokens")
    python = (
        f" The built-in text: the standard library of Python {text['python_version']}."
        if text.get("python_version")
        else ""
    )
    tokenizer = (text.get("tokenizer") or {}).get("name")
    cut = f", tokenizer {tokenizer}" if tokenizer else ""
    return f"{listing(parts)}{cut}, digest {text['digest']}.{python}"


def overlap_sentence(study: Row) -> str:
    """How much of the held-out text also stands in the training text."""
    overlap = study["text"].get("overlap") or {}
    shares = {split: overlap.get(split) for split in ("validation", "test")}
    known = [f"{percent(share)} of the {split} text's" for split, share in shares.items() if share is not None]
    if not known:
        return "What overlap there is between the splits was not measured."
    size = overlap.get("window_bytes")
    windows = f"{size}-byte windows" if size else "sampled windows"
    return (
        "Exact duplicates were removed from validation and test."
        f" What is left: {listing(known)} {windows} also occur in the training text."
    )
