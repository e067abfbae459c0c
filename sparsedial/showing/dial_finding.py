"""The first lines of the dial page: the best sparsity and how sure it is, sparse against dense, then the limits."""

from __future__ import annotations

from sparsedial.records.plan import Position, Positions
from sparsedial.records.quantities import Span
from sparsedial.showing.words import sparsity_words
from sparsedial.units import human_bytes, human_cost, human_count, human_dollars, human_percent, human_seconds, signed

EQUAL = {"flops": "FLOPs", "seconds": "time", "joules": "energy", "dollars": "money"}
BOUNDS = {
    "max_total_parameters": "at most {} total parameters",
    "max_active_parameters": "at most {} active parameters",
    "max_experts": "at most {} experts",
    "top_k": "{} experts per token",
    "device_memory_bytes": "at most {} of memory on the devices",
    "memory_bytes": "at most {} of memory to train",
    "serving_memory_bytes": "at most {} of memory to serve",
    "decode_tokens_per_second": "at least {} tokens per second",
    "data_tokens": "{} unique tokens of data",
}
NO_INTERVAL = "The law gives no interval."
ENDS = {  # of the search; that of sparsity is said with the best
    "d_model": "width {}, {}",
    "experts": "{} experts, {}",
    "budget": "the budget, since this law is about one number of tokens",
}


def finding(answer: Positions) -> str:
    """The answer in one sentence: the best sparsity and its model, or why there is no such answer."""
    best = answer.positions[answer.best]
    active = f", {human_count(best.active_parameters)} active" if best.shape.experts else ""
    model = f"{human_count(best.total_parameters)} parameters{active}, {human_count(best.tokens)} tokens"
    if answer.no_choice_reason is not None:
        return f"This law cannot say which sparsity is best: {answer.no_choice_reason}. Its best model has {model}."
    if answer.budget.target_loss is not None:
        cheapest = f"is {_kind(best)}: {human_cost('flops', best.costs.flops)}, with {model}"
        return f"The cheapest way to a loss of {answer.budget.target_loss:g} {cheapest}."
    if len(answer.positions) == 1:
        return f"Within these bounds there is one choice, {_kind(best)}: {model}."
    if best.shape.experts:
        return f"The best sparsity is {sparsity_words(best.shape, best.sparsity)}: {model}."
    if answer.winner == "dense":
        return f"Stay dense: the best model is dense, with {model}."
    return f"The best model is dense, by less than the law can tell: {model}."


def beside_it(answer: Positions) -> tuple[str, ...]:
    """The lines after the finding: how sure the best sparsity is, sparse against dense, what limits the answer."""
    if answer.no_choice_reason is not None:
        return _limits(answer)
    against = _costs_to_reach(answer) if answer.budget.target_loss is not None else _against_dense(answer)
    how_sure = _how_sure(answer) if len(answer.positions) > 1 else ()
    return (*how_sure, f"Sparse against dense: {against}.", *_limits(answer))


def _kind(row: Position) -> str:
    return f"sparsity {sparsity_words(row.shape, row.sparsity)}" if row.shape.experts else "a dense model"


def _how_sure(answer: Positions) -> tuple[str, ...]:
    """Whether the best lies at the end of the dial, and its interval, or how wide the optimum is."""
    best, near = answer.positions[answer.best], answer.near_optimal
    lines: list[str] = []
    if best.shape.experts and answer.best == len(answer.positions) - 1:
        lines.append("This is the sparsest level considered, so the best may lie beyond.")
    if near.sampled is not None:
        share = human_percent(near.sampled.confidence)
        agree = set(near.sampled.sparsity) == {best.sparsity}
        span = f"The law's {share} interval of the best sparsity is {_span(near.sampled.sparsity)}."
        lines.append(f"At least {share} of the law's samples agree." if agree else span)
    if near.sparsity is not None:
        target = answer.budget.target_loss is not None
        unit, unknown = ("cost", "For a target loss the law gives no interval.") if target else ("loss", NO_INTERVAL)
        if near.sampled is None:
            lines.append(unknown)
        lines.append(f"Within 0.5 % of the best {unit}: sparsity {_span(near.sparsity)}.")
    return (" ".join(lines),)


def _span(span: Span) -> str:
    low, high = (f"{end:.4g}" if end else "0 (dense)" for end in span)
    return f"{low} alone" if low == high else f"{low} to {high}"


def _sparse_and_dense(answer: Positions) -> tuple[Position | None, Position | None]:
    """The best sparse and the best dense position; None where a family has none.

    A sparse answer is the best sparse position, though one that is not recommended, beyond the law's runs, may be
    predicted to be better.
    """
    best = answer.positions[answer.best]
    sparse = [best] if best.shape.experts else [row for row in answer.positions if row.shape.experts]
    goal = _flops if answer.budget.target_loss is not None else _loss
    return min(sparse, key=goal, default=None), None if answer.dense is None else answer.positions[answer.dense]


def _flops(row: Position) -> float:
    return row.costs.flops


def _loss(row: Position) -> float:
    return row.predicted_loss.mean


def _costs_to_reach(answer: Positions) -> str:
    """What each family pays for the same loss."""
    sparse, dense = _sparse_and_dense(answer)
    if sparse is None or dense is None:
        return f"no {'sparse' if sparse is None else 'dense'} model that may be asked about reaches this loss"
    costs = sorted((row.costs.flops, name) for row, name in ((sparse, "sparse"), (dense, "dense")))
    (less, cheap), (more, dear) = costs
    spent = f"{human_cost('flops', less)} {cheap}, {human_cost('flops', more)} {dear}"
    return f"{spent}, so {dear} costs {more / less:.3g} times as much"


def _against_dense(answer: Positions) -> str:
    sparse, dense = _sparse_and_dense(answer)
    gap = answer.gap_to_dense
    if gap is None or sparse is None or dense is None:
        return answer.gap_to_dense_reason or "one of the two does not fit"
    equal = f"at equal {EQUAL[answer.budget.currency]}"
    interval = ""
    if gap.low is not None and gap.high is not None:
        interval = f" (dense minus sparse {signed(gap.low)} to {signed(gap.high)})"
    if answer.winner == "undecided":
        size = f"the best dense model is {signed(gap.mean)} nats from the best sparse one"
        return f"undecided {equal}: {size}{interval or ', a tie'}"
    better, worse = (sparse, dense) if gap.mean > 0 else (dense, sparse)
    share = human_percent(abs(gap.mean) / worse.predicted_loss.mean)
    names = ("sparse", "dense") if better is sparse else ("dense", "sparse")
    won = f"{equal} the best {names[0]} model is {abs(gap.mean):.3f} nats ({share}) better than the best {names[1]} one"
    return f"{won}{interval}{_paid(answer, sparse, dense)}"


def _paid(answer: Positions, sparse: Position, dense: Position) -> str:
    """What equal FLOPs cost each in time and money: not the same."""
    times = [row.costs.seconds for row in (sparse, dense)]
    if answer.budget.currency != "flops" or times[0] is None or times[1] is None:
        return ""
    prices = [row.costs.dollars for row in (sparse, dense)]
    paid = [
        human_seconds(time) + ("" if price is None else f" and {human_dollars(price)}")
        for time, price in zip(times, prices, strict=True)
        if time is not None
    ]
    return f"; equal FLOPs are not equal time: sparse takes {paid[0]}, dense {paid[1]}"


def _limits(answer: Positions) -> tuple[str, ...]:
    bounds = [words for name in answer.positions[answer.best].binding_constraints if (words := bound_words(name))]
    return (f"Limited by: {'; '.join(bounds)}.",) if bounds else ()


def bound_words(name: str) -> str | None:
    """A text for a binding constraint: `max_total_parameters=3e+10` is `at most 30B total parameters`.

    None for the end of the dial, which is said with the best sparsity.
    """
    key, _, rest = name.partition("=")
    value, _, why = rest.partition(":")
    words = BOUNDS.get(key)
    if words is not None:
        said = words.format(human_bytes(float(value)) if "memory" in key else human_count(float(value)))
        return f"{said} ({why.strip()})" if why else said
    if key == "experts/top_k":
        return None
    return ENDS[key].format(value, why.strip()) if key in ENDS else name
