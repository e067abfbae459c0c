"""The texts of the dial page. All numbers are formatted here, since the browser holds no formula."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from sparsedial.records.dial import PageDial, PagePosition, PageRace, PositionWords
from sparsedial.records.plan import Position, Positions, PredictedLoss, Race, TrainingCosts, Winner
from sparsedial.records.quantities import Currency, Interval
from sparsedial.shape.shape import Shape
from sparsedial.showing.words import crossing_words, signed
from sparsedial.units import human_bytes, human_count, human_joules, human_seconds

AXES = {
    "flops": "training FLOPs",
    "seconds": "seconds of training",
    "joules": "joules of training",
    "dollars": "dollars of training",
}
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
CSV = (
    "sparsity", "experts", "top_k", "total_parameters", "active_parameters", "tokens", "loss", "loss_low", "loss_high",
    "flops", "seconds", "joules", "dollars", "memory_bytes", "serving_memory_bytes",
)  # fmt: skip


def with_words(answer: Positions, law: str, state: Mapping[str, str]) -> PageDial:
    """The positions of a dial with their texts, the finding, the equivalent command, and a table as CSV."""
    rows = answer.positions
    dense = None if answer.dense is None else rows[answer.dense]
    return PageDial(
        budget=answer.budget,
        positions=tuple(_with_words(row, dense) for row in rows),
        best=answer.best,
        dense=answer.dense,
        machine=answer.machine,
        gap_to_dense=answer.gap_to_dense,
        gap_to_dense_reason=answer.gap_to_dense_reason,
        winner=answer.winner,
        words=_finding(answer, rows[answer.best], dense),
        command=_command(law, state),
        csv=_csv(rows),
    )


def _with_words(row: Position, dense: Position | None) -> PagePosition:
    return PagePosition(**row, words=_row_words(row, dense))


def _row_words(row: Position, dense: Position | None) -> PositionWords:
    shape, costs = row.shape, row.costs
    return PositionWords(
        sparsity=_sparsity(row),
        short=f"{row.sparsity:.3g}" if shape.experts else "dense",
        loss=loss_words(row.predicted_loss),
        gap=_gap(row, dense),
        parameters=human_count(row.total_parameters),
        active=human_count(row.active_parameters),
        tokens=human_count(row.tokens),
        time=_time(costs),
        energy="no machine named" if costs.joules is None else human_joules(costs.joules),
        money="no price given" if costs.dollars is None else f"${costs.dollars:,.0f}",
        memory=human_bytes(costs.memory_bytes),
        serving=human_bytes(costs.serving_memory_bytes),
        shape=shape_line(shape),
    )


def _time(costs: TrainingCosts) -> str:
    if costs.seconds is None or costs.seconds_low is None or costs.seconds_high is None:
        return "no machine named"
    return f"{human_seconds(costs.seconds)} ({human_seconds(costs.seconds_low)} to {human_seconds(costs.seconds_high)})"


def _sparsity(row: Position) -> str:
    if not row.shape.experts:
        return "dense"
    return f"{row.sparsity:.4g} ({row.shape.top_k} of {row.shape.experts})"


def loss_words(loss: PredictedLoss) -> str:
    """A loss with its interval, where it has one."""
    if loss.low is None or loss.high is None:
        return f"{loss.mean:.3f}"
    return f"{loss.mean:.3f} ({loss.low:.3f} to {loss.high:.3f})"


def _gap(row: Position, dense: Position | None) -> str:
    if dense is None:
        return "no dense model fits"
    if row is dense:
        return "this is that model"
    return f"{signed(row.predicted_loss.mean - dense.predicted_loss.mean)} nats"


def shape_line(shape: Shape) -> str:
    """A shape's sizes on one line."""
    sizes = f"{shape.layers} layers, d_model {shape.d_model}, {shape.heads} heads of {shape.head_dim}"
    if not shape.experts:
        return f"{sizes}; dense, d_ff {shape.d_ff}"
    shared = f", {shape.shared_experts} shared" if shape.shared_experts else ""
    return f"{sizes}; {shape.experts} experts of {shape.d_expert}, top-{shape.top_k}{shared}"


def winner_words(winner: Winner | None, gap: Interval | None) -> str | None:
    """Which family is better by the law, by how much, and how sure that is; None without a gap."""
    if winner is None or gap is None:
        return None
    interval = "the law gives no interval"
    if gap.low is not None and gap.high is not None:
        interval = f"{signed(gap.low)} to {signed(gap.high)}"
    size = f"dense minus sparse is {signed(gap.mean)} nats ({interval})"
    return {"sparse": f"sparse: {size}", "dense": f"dense: {size}", "undecided": f"undecided: {size}"}[winner]


def _finding(answer: Positions, best: Position, dense: Position | None) -> str:
    """The answer in sentences: first what a reader must know of the law, then the best sparsity and its limits."""
    size = f"{human_count(best.total_parameters)} parameters, {human_count(best.active_parameters)} active"
    first = "".join(f"{line[0].upper()}{line[1:]}. " for line in best.marks)
    bounds = [_bound(name) for name in best.binding_constraints]
    limits = f" Limited by: {'; '.join(bounds)}." if bounds else ""
    if answer.winner == "undecided":
        first += f"Sparse or dense is {winner_words(answer.winner, answer.gap_to_dense)}. "
    if not best.shape.experts:
        return f"{first}Stay dense: the best model is dense, with {human_count(best.total_parameters)} parameters."
    words = f"{first}The best sparsity is {_sparsity(best)}: {size}"
    if dense is not None:
        better = dense.predicted_loss.mean - best.predicted_loss.mean
        words += f", predicted {better:.3f} nats better than the best dense model at the same cost"
    return f"{words}.{limits}"


def _bound(name: str) -> str:
    """A text for a binding constraint: `max_total_parameters=3e+10` is `at most 30B total parameters`."""
    key, _, rest = name.partition("=")
    value, _, why = rest.partition(":")
    words = BOUNDS.get(key)
    if words is not None:
        said = words.format(human_bytes(float(value)) if "memory" in key else human_count(float(value)))
        return f"{said} ({why.strip()})" if why else said
    if why:
        return f"{key.replace('_', ' ')} {value} is{why.removeprefix(' the')}".replace("is most", "is the most")
    return name


def _command(law: str, state: Mapping[str, str]) -> str:
    flags = [
        f"--{key.replace('_', '-')} {shlex.quote(value)}"
        for key, value in state.items()
        if value and key not in ("position", "law")
    ]
    return " ".join(["sparsedial plan", *flags, f"--law {shlex.quote(law)}", "--sparsity SPARSITY"])


def _csv(rows: Sequence[Position]) -> str:
    lines = [",".join(CSV)]
    for row in rows:
        loss, costs = row.predicted_loss, row.costs
        values = (
            row.sparsity, row.shape.experts, row.shape.top_k, row.total_parameters, row.active_parameters, row.tokens,
            loss.mean, loss.low, loss.high, costs.flops, costs.seconds, costs.joules, costs.dollars,
            costs.memory_bytes, costs.serving_memory_bytes,
        )  # fmt: skip
        lines.append(",".join("" if value is None else str(value) for value in values))
    return "\n".join(lines) + "\n"


def race_words(answer: Race) -> PageRace:
    """The crossover with its text, and the label of its axis."""
    cross = answer.crossover
    words = (answer.crossover_reason or "") if cross is None else f"Sparse beats dense {crossing_words(cross)}."
    return PageRace(**answer, words=words[0].upper() + words[1:], axis=AXES[answer.currency])


def no_race(currency: Currency, reason: str) -> PageRace:
    """The answer where there is no crossover to look for."""
    nothing = Race(
        currency=currency, budgets=(), dense_loss=(), sparse_loss=(), crossover=None, crossover_reason=reason
    )
    return race_words(nothing)
