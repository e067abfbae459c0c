"""The table of a plan: the answer, sparse against dense, what to do next; then costs, limits and other laws."""

from __future__ import annotations

from shlex import quote

from msgspec.structs import replace

from sparsedial.cli.rows import Rows, lines, span_words, under
from sparsedial.law.fence import WORDS
from sparsedial.records.plan import Export, NearOptimal, OtherLaw, Plan, Rival, TrainingCosts, Winner
from sparsedial.records.quantities import Interval, Span
from sparsedial.showing.best_words import experts_words
from sparsedial.showing.cost_words import energy_words, money_words, time_words
from sparsedial.showing.dial_words import loss_words, shape_line
from sparsedial.showing.words import crossing_words
from sparsedial.units import bare_exponent, human_bytes, human_cost, human_count, human_percent, signed

MOST_SPENT = 0.95  # of a budget; less is said
ENDS = {  # how bounds begin that the sparsest models considered set, and what was not considered then
    ("experts/top_k=",): "no sparser model",
    ("experts=", "max_experts="): "no model of more experts",
}


def plan_table(plan: Plan) -> str:
    """All rows of a plan."""
    return lines(
        [
            *under("answer", [_answer(plan), *_known(plan), *_marks(plan)]),
            *under("sparse or dense", _against_dense(plan)),
            ("next", _next(plan)),
            ("shape", shape_line(plan.shape)),
            ("tokens", f"{human_count(plan.tokens)}, {plan.tokens_per_total_parameter:.3g} per total parameter"),
            ("predicted loss", loss_words(plan.predicted_loss) + f" nats per token by {plan.law}"),
            *_cost_rows(plan.costs),
            *_width_rows(plan),
            *(("limited by", bound) for bound in plan.binding_constraints),
            *((f"by {row.law}", _other_words(row)) for row in plan.other_laws),
            *(("note", line) for line in plan.warnings if not line.startswith(_marked(plan))),
            *(row for item in plan.exported for row in _export_rows(item)),
        ]
    )


def _answer(plan: Plan) -> str:
    """The best sparsity and its model; where the law cannot say, that, and the best model of those that it knows."""
    shape = plan.shape
    sizes = f"{human_count(plan.total_parameters)} parameters, {human_count(plan.active_parameters)} active"
    model = f"{experts_words(shape)}, width {shape.d_model}, {sizes}, {human_count(plan.tokens)} tokens"
    if plan.best_sparsity_reason:
        why = plan.best_sparsity_reason
        return f"which sparsity is best is not known: {why}; the best model of these: {model}"
    best = f"sparsity {plan.sparsity.experts:.4g}" if shape.experts else "a dense model"
    model = model if shape.experts else model.removeprefix(f"{experts_words(shape)}, ")
    if plan.budget.target_loss is not None:
        return f"{best} reaches {plan.budget.target_loss:g} nats per token at the lowest cost: {model}"
    return f"{best} is best: {model}"


def _known(plan: Plan) -> list[str]:
    """How well the best sparsity is known."""
    if plan.best_sparsity_reason:
        return []
    for begins, unseen in ENDS.items():
        if plan.shape.experts and any(bound.startswith(begins) for bound in plan.binding_constraints):
            return [f"{unseen} was considered, so the best sparsity may lie beyond"]
    if plan.near_optimal.sampled is None:
        return ["this law gives the best sparsity no interval"]
    best = plan.near_optimal.sampled
    return [f"by the law's samples the best sparsity is {span_words(best.sparsity)} ({human_percent(best.confidence)})"]


def _marks(plan: Plan) -> list[str]:
    """What makes the answer doubtful, as an extrapolation does."""
    return [line for line in plan.marks if line != plan.best_sparsity_reason]


def _next(plan: Plan) -> str:
    if plan.origin is None:
        return "sparsedial study TEXT: it measures the best sparsity on your own text, as no law of other text can"
    if plan.out is None:
        return "sparsedial train PLAN --text TEXT: it trains this model (--out PLAN writes the plan)"
    return f"sparsedial train {quote(plan.out)} --text TEXT: it trains this model"


def _marked(plan: Plan) -> tuple[str, ...]:
    """How the notes begin that the mark of an extrapolation says already."""
    words = (WORDS.get(name, name) for name in plan.extrapolation if name != "experts")
    return tuple(f"{word} {verb} " for word in words for verb in ("are", "is"))


def _against_dense(plan: Plan) -> list[str]:
    """Which family wins, the dense rival, and where that changes; or what each costs, where a loss is to be reached."""
    if plan.best_sparsity_reason:
        return []
    rival = plan.dense_rival
    if rival is None:
        return [plan.dense_rival_reason or ""]
    if plan.budget.target_loss is not None:
        return [_price_words(plan, rival)]
    cross, shape = plan.crossover, f"{human_count(rival.total_parameters)}, {human_count(rival.tokens)} tokens"
    crossing = f"sparse beats dense {crossing_words(cross)}" if cross else plan.crossover_reason or ""
    return [
        _winner_words(plan.winner, plan.gap_to_dense) or plan.gap_to_dense_reason or "",
        f"the best dense model: {shape}, predicted loss {loss_words(rival.predicted_loss)}",
        crossing,
    ]


def _winner_words(winner: Winner | None, gap: Interval | None) -> str | None:
    """Which family is better by the law, by how much, and how sure that is; None without a gap."""
    if winner is None or gap is None:
        return None
    interval = "the law gives no interval"
    if gap.low is not None and gap.high is not None:
        interval = f"{signed(gap.low)} to {signed(gap.high)}"
    size = f"dense minus sparse is {signed(gap.mean)} nats ({interval})"
    return {"sparse": f"sparse: {size}", "dense": f"dense: {size}", "undecided": f"undecided: {size}"}[winner]


def _price_words(plan: Plan, rival: Rival) -> str:
    """What the same loss costs with the best dense model, and how many times as much that is."""
    currency = plan.budget.currency
    words = f"the best dense model ({human_count(rival.total_parameters)}, {human_count(rival.tokens)} tokens)"
    words += f" needs {human_cost(currency, rival.cost)} for the same loss"
    if plan.cost and plan.shape.experts:
        words += f", {rival.cost / plan.cost:.3g} times the {human_cost(currency, plan.cost)} of this one"
    costs = [words for words in (time_words(rival.costs), money_words(rival.costs)) if words] if rival.costs else []
    return "; ".join([words, *costs])


def _cost_rows(costs: TrainingCosts) -> Rows:
    named = [("time", time_words(costs)), ("energy", energy_words(costs)), ("money", money_words(costs))]
    memory = f"{human_bytes(costs.memory_bytes)} to train, {human_bytes(costs.serving_memory_bytes)} to serve"
    return [
        ("FLOPs", bare_exponent(f"{costs.flops:.3g}")),
        *((name, words) for name, words in named if words),
        ("memory", memory),
        ("", f"to train: {costs.memory_source}"),
    ]


def _width_rows(plan: Plan) -> Rows:
    """How wide the optimum is: nothing for a loss to reach, which all candidates reach."""
    if plan.budget.target_loss is not None:
        return []
    band = plan.near_optimal
    return [("near-optimal", _near_words(replace(band, sparsity=None) if plan.best_sparsity_reason else band))]


def _near_words(band: NearOptimal) -> str:
    spans = [f"sparsity {span_words(band.sparsity)}"] if band.sparsity else []
    for span, words in ((band.total_parameters, "parameters"), (band.tokens, "tokens")):
        if span:
            spans.append(f"{_count_span(span)} {words}")
    words = ", ".join(spans)
    if band.sampled is None:
        return words
    best = band.sampled
    sparsity = f"sparsity {span_words(best.sparsity)}, " if band.sparsity else ""
    sizes = f"{_count_span(best.total_parameters)} parameters, {_count_span(best.tokens)} tokens"
    by = f"the best by the law's samples ({human_percent(best.confidence)})"
    return f"{words}; {by}: {sparsity}{sizes}"


def _count_span(span: Span) -> str:
    low, high = (human_count(end) for end in span)
    return low if low == high else f"{low} to {high}"


def _other_words(row: OtherLaw) -> str:
    answer = row.answer
    if answer is None:
        return row.answer_reason or ""
    if answer.leverage_of_this_shape is not None:
        return f"this shape is as good as a dense model with {answer.leverage_of_this_shape:.3g} times its compute"
    total, active, tokens = (value or 0 for value in (answer.total_parameters, answer.active_parameters, answer.tokens))
    sizes = f"{human_count(total)} total, {human_count(active)} active"
    kind = f"sparsity {answer.sparsity:.4g}" if answer.sparsity else "dense"
    words = f"{kind}, {sizes}, {human_count(tokens)} tokens"
    if answer.budget_share is not None and answer.budget_share < MOST_SPENT:
        words += f", {human_percent(answer.budget_share)} of the budget"
    far = " (an extrapolation)" if answer.extrapolation else ""
    return f"{words}{far}; assumes: {row.held_fixed}"


def _export_rows(item: Export) -> Rows:
    return [
        ("written", f"{item.file} for {item.written_for}"),
        ("use it with", item.command),
        *(("not expressed", line) for line in item.not_expressed),
    ]
