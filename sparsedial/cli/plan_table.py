"""The table of a plan: the answer, its dense rival, its limits, and other laws' answers."""

from __future__ import annotations

from sparsedial.cli.rows import Rows, lines, span_words
from sparsedial.law.fence import WORDS
from sparsedial.records.plan import Export, NearOptimal, OtherLaw, Plan, TrainingCosts
from sparsedial.records.quantities import Span
from sparsedial.showing.dial_finding import winner_words
from sparsedial.showing.dial_words import loss_words, shape_line
from sparsedial.showing.words import crossing_words
from sparsedial.units import human_bytes, human_count, human_joules, human_percent, human_seconds

MOST_SPENT = 0.95  # of a budget; less is said


def plan_table(plan: Plan) -> str:
    """All rows of a plan."""
    sizes = f"{human_count(plan.total_parameters)} total, {human_count(plan.active_parameters)} active"
    per_parameter = f"{plan.tokens_per_total_parameter:.3g} per total parameter"
    return lines(
        [
            *(("mind", line) for line in plan.marks),
            ("shape", shape_line(plan.shape)),
            ("parameters", sizes),
            ("tokens", f"{human_count(plan.tokens)}, {per_parameter}"),
            ("predicted loss", loss_words(plan.predicted_loss) + f" nats per token by {plan.law}"),
            *_cost_rows(plan.costs),
            *((head, words) for head, words in _against_dense(plan) if words not in plan.marks),
            ("near-optimal", _near_words(plan.near_optimal)),
            *(("limited by", bound) for bound in plan.binding_constraints),
            *((f"by {row.law}", _other_words(row)) for row in plan.other_laws),
            *(("note", line) for line in plan.warnings if not line.startswith(_marked(plan))),
            *(row for item in plan.exported for row in _export_rows(item)),
        ]
    )


def _marked(plan: Plan) -> tuple[str, ...]:
    """How the notes begin that the mark of an extrapolation says already."""
    words = (WORDS.get(name, name) for name in plan.extrapolation if name != "experts")
    return tuple(f"{word} {verb} " for word in words for verb in ("are", "is"))


def _against_dense(plan: Plan) -> Rows:
    """The dense rival, which family wins and where that changes, or why there is none of these."""
    cross = plan.crossover
    return [
        ("dense rival", _rival_words(plan)),
        ("sparse or dense", winner_words(plan.winner, plan.gap_to_dense) or plan.gap_to_dense_reason or ""),
        ("crossover", f"sparse beats dense {crossing_words(cross)}" if cross else plan.crossover_reason or ""),
    ]


def _cost_rows(costs: TrainingCosts) -> Rows:
    rows = [("FLOPs", f"{costs.flops:.3g}")]
    if costs.seconds is not None and costs.seconds_low is not None and costs.seconds_high is not None:
        spread = f"{human_seconds(costs.seconds_low)} to {human_seconds(costs.seconds_high)}"
        rows.append(("time", f"{human_seconds(costs.seconds)} ({spread})"))
    if costs.joules is not None:
        rows.append(("energy", human_joules(costs.joules)))
    if costs.dollars is not None:
        rows.append(("money", f"${costs.dollars:,.0f}"))
    memory = f"{human_bytes(costs.memory_bytes)} to train, {human_bytes(costs.serving_memory_bytes)} to serve"
    return [*rows, ("memory", memory), ("", f"to train: {costs.memory_source}")]


def _rival_words(plan: Plan) -> str:
    rival = plan.dense_rival
    if rival is None:
        return plan.dense_rival_reason or ""
    sizes = f"{human_count(rival.total_parameters)}, {human_count(rival.tokens)} tokens"
    return f"{sizes}: {loss_words(rival.predicted_loss)}"


def _near_words(band: NearOptimal) -> str:
    spans = [f"sparsity {span_words(band.sparsity)}"] if band.sparsity else []
    for span, words in ((band.total_parameters, "parameters"), (band.tokens, "tokens")):
        if span:
            spans.append(f"{_count_span(span)} {words}")
    words = ", ".join(spans)
    if band.sampled is None:
        return words
    best = band.sampled
    sizes = f"{_count_span(best.total_parameters)} parameters, {_count_span(best.tokens)} tokens"
    by = f"the best by the law's samples ({human_percent(best.confidence)})"
    return f"{words}; {by}: sparsity {span_words(best.sparsity)}, {sizes}"


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
    words = f"sparsity {answer.sparsity:.4g}, {sizes}, {human_count(tokens)} tokens"
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
