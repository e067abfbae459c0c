"""The texts of the dial page. All numbers are formatted here, since the browser holds no formula."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence

from sparsedial.errors import MARKED, UserError
from sparsedial.records.dial import (
    PageChart,
    PageDial,
    PagePosition,
    PageProblem,
    PageRace,
    PositionWords,
    Tick,
    Told,
)
from sparsedial.records.plan import Position, Positions, PredictedLoss, Race, TrainingCosts
from sparsedial.records.quantities import Currency
from sparsedial.shape.shape import Shape
from sparsedial.showing.dial_finding import BOUNDS, beside_it, bound_words, finding
from sparsedial.showing.words import crossing_words, sparsity_words
from sparsedial.units import (
    YEAR,
    bare_exponent,
    count_words,
    human_bytes,
    human_cost,
    human_count,
    human_dollars,
    human_joules,
    signed,
)

ORIGIN = "dial"  # of the page's settings, in errors
OWN = ("law", "position", "beside")  # what an address holds beside the settings of a plan
AXES = {
    "flops": "training FLOPs",
    "seconds": "time of training",
    "joules": "energy of training",
    "dollars": "dollars of training",
}
TIMES = (1, 60, 600, 3600, 36e3, 86400, 864e3, 864e4, YEAR, 10 * YEAR, 100 * YEAR, 1000 * YEAR)
TIME_NAMES = ("1 s", "1 min", "10 min", "1 h", "10 h", "1 d", "10 d", "100 d", "1 y", "10 y", "100 y", "1000 y")
FIELDS = {"memory_bytes": "memory", "device_memory_bytes": "devices", "serving_memory_bytes": "serving_memory"}
FIELDS["decode_tokens_per_second"] = "decode_speed"
BOUND = re.compile(rf"\b({'|'.join(BOUNDS)})=[\d.e+-]+")
CSV = (
    "sparsity", "experts", "top_k", "total_parameters", "active_parameters", "tokens", "loss", "loss_low", "loss_high",
    "flops", "seconds", "joules", "dollars", "memory_bytes", "serving_memory_bytes",
)  # fmt: skip


def with_words(answer: Positions, law: str, law_words: str, state: Mapping[str, str]) -> PageDial:
    """The positions of a dial with their texts, the finding, the equivalent command, and a table as CSV."""
    rows = answer.positions
    return PageDial(
        budget=answer.budget,
        positions=tuple(PagePosition(**row, words=_row_words(answer, row)) for row in rows),
        best=answer.best,
        dense=answer.dense,
        machine=answer.machine,
        gap_to_dense=answer.gap_to_dense,
        gap_to_dense_reason=answer.gap_to_dense_reason,
        winner=answer.winner,
        near_optimal=answer.near_optimal,
        no_choice_reason=answer.no_choice_reason,
        law=law_words,
        words=finding(answer),
        more=beside_it(answer),
        gap_label="Loss minus the best dense model's" if answer.budget.value else "Cost, against the best dense model",
        chart=_chart(answer),
        caption=_caption(answer, law_words, state),
        command=_command(law, state),
        csv=_csv(rows),
        unknown_amounts=_unknown_amounts(rows[0].costs),
    )


def _row_words(answer: Positions, row: Position) -> PositionWords:
    shape, costs = row.shape, row.costs
    return PositionWords(
        sparsity=sparsity_words(row.shape, row.sparsity),
        short=f"{row.sparsity:.3g}" if shape.experts else "dense",
        shape=shape_line(shape),
        loss=_loss(row.predicted_loss),
        gap=_gap(answer, row),
        parameters=Told(text=human_count(row.total_parameters)),
        active=Told(text=human_count(row.active_parameters)),
        tokens=Told(text=human_count(row.tokens)),
        time=_with_range("seconds", costs.seconds, costs.seconds_low, costs.seconds_high, "no machine named"),
        energy=_energy(costs),
        money=_with_range(
            "dollars", costs.dollars, costs.dollars_low, costs.dollars_high, costs.dollars_reason or "no price given"
        ),
        memory=Told(text=human_bytes(costs.memory_bytes)),
        serving=Told(text=human_bytes(costs.serving_memory_bytes)),
        amounts=_amounts(answer, row),
    )


def _loss(loss: PredictedLoss) -> Told:
    if loss.low is None or loss.high is None:
        return Told(text=f"{loss.mean:.3f}", more="the law gives no interval")
    return Told(text=f"{loss.mean:.3f}", more=f"{loss.low:.3f} to {loss.high:.3f}")


def _energy(costs: TrainingCosts) -> Told:
    told = _with_range("joules", costs.joules, costs.joules_low, costs.joules_high, _no_energy(costs))
    return Told(text=told.text, more=f"{told.more}, estimated") if costs.joules_basis == "estimated" else told


def _no_energy(costs: TrainingCosts) -> str:
    return "no machine named" if costs.seconds is None else costs.joules_reason or "not known"


def _with_range(currency: Currency, value: float | None, low: float | None, high: float | None, missing: str) -> Told:
    """A cost with its range."""
    if value is None or low is None or high is None:
        return Told(text="–", more=missing)
    return Told(
        text=human_cost(currency, value), more=range_words(human_cost(currency, low), human_cost(currency, high))
    )


def range_words(low: str, high: str) -> str:
    """A range on one line: `3.8 to 8.1 days`, with spaces that do not break."""
    (amount, _, unit), other = low.partition(" "), high.partition(" ")
    alike = unit == other[2] and not any(map(str.isdigit, unit))  # `4 min 05 s` has two amounts
    return f"{amount if alike else low} to {high}".replace(" ", "\N{NO-BREAK SPACE}")


def _gap(answer: Positions, row: Position) -> Told:
    dense = None if answer.dense is None else answer.positions[answer.dense]
    if answer.no_choice_reason is not None:
        return Told(text="–", more="this law cannot say")
    if dense is None:
        return Told(text="–", more="no dense model to compare with")
    if row is dense:
        return Told(text="–", more="this is that model")
    if answer.budget.target_loss is None:
        return Told(text=f"{signed(row.predicted_loss.mean - dense.predicted_loss.mean)} nats")
    ratio = dense.costs.flops / row.costs.flops
    return Told(text=f"{ratio:.3g} times less" if ratio >= 1 else f"{1 / ratio:.3g} times more")


def loss_words(loss: PredictedLoss) -> str:
    """A loss with its interval, where it has one."""
    if loss.low is None or loss.high is None:
        return f"{loss.mean:.3f}"
    return f"{loss.mean:.3f} ({loss.low:.3f} to {loss.high:.3f})"


def shape_line(shape: Shape) -> str:
    """A shape's sizes on one line."""
    sizes = f"{shape.layers} layers, d_model {shape.d_model}, {count_words(shape.heads, 'head')} of {shape.head_dim}"
    if not shape.experts:
        return f"{sizes}; dense, d_ff {shape.d_ff}"
    shared = f", {shape.shared_experts} shared" if shape.shared_experts else ""
    return f"{sizes}; {shape.experts} experts of {shape.d_expert}, top-{shape.top_k}{shared}"


def _amounts(answer: Positions, row: Position) -> dict[str, str]:
    """The budget in every currency, in which a training of this shape costs the same."""
    costs, budget = row.costs, answer.budget
    known: dict[str, float | None] = {
        "flops": costs.flops, "seconds": costs.seconds, "joules": costs.joules, "dollars": costs.dollars
    }  # fmt: skip
    spent = known[budget.currency]
    share = 1.0 if budget.value is None or not spent else budget.value / spent  # a law may spend less than the budget
    amounts = {name: value * share for name, value in known.items() if value is not None}
    if "seconds" in amounts and answer.machine is not None:
        amounts["gpu_hours"] = amounts["seconds"] * answer.machine.devices / 3600
    return {name: _typed(name, value) for name, value in amounts.items()} | {
        "target_loss": f"{row.predicted_loss.mean:.4f}"
    }


def _typed(currency: str, value: float) -> str:
    """An amount as one types it: `1e21`, `5.208d`, `702kWh`."""
    units = {
        "seconds": ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")),
        "joules": ((3.6e12, "GWh"), (3.6e9, "MWh"), (3.6e6, "kWh"), (1, "J")),
    }.get(currency, ((1, ""),))
    size, unit = next(((size, unit) for size, unit in units if value >= size), units[-1])
    plain = f"{value / size:.4g}"
    if "e" in plain and 1e-4 < value / size < 1e9:
        plain = f"{value / size:.0f}"
    return bare_exponent(plain) + unit


def _unknown_amounts(costs: TrainingCosts) -> dict[str, str]:
    """What to give before the budget is known in a currency."""
    if costs.seconds is None:
        names = ("seconds", "gpu_hours", "joules", "dollars")
        return dict.fromkeys(names, "name a <device> first: time, energy and money need one")
    unknown = {} if costs.joules is not None else {"joules": _no_energy(costs)}
    return unknown | ({"dollars": "give <price> first"} if costs.dollars is None else {})


def _chart(answer: Positions) -> PageChart:
    rows = answer.positions
    if answer.budget.target_loss is not None:
        flops = [row.costs.flops for row in rows]
        return PageChart(
            axis="training FLOPs to reach the loss",
            log=True,
            values=tuple(flops),
            low=(),
            high=(),
            beyond=tuple(value / min(flops) for value in flops),
            beyond_axis="times the least cost by that law",
        )
    losses = [row.predicted_loss for row in rows]
    bands = [(loss.low, loss.high) for loss in losses if loss.low is not None and loss.high is not None]
    least = min(loss.mean for loss in losses)
    return PageChart(
        axis="loss, nats per token",
        log=False,
        values=tuple(loss.mean for loss in losses),
        low=tuple(low for low, _ in bands) if len(bands) == len(rows) else (),
        high=tuple(high for _, high in bands) if len(bands) == len(rows) else (),
        beyond=tuple(loss.mean - least for loss in losses),
        beyond_axis="nats above that law's best",
    )


def _caption(answer: Positions, law_words: str, state: Mapping[str, str]) -> str:
    budget = answer.budget
    amount = f"loss {budget.target_loss:g}" if budget.value is None else human_cost(budget.currency, budget.value)
    amounts = ("flops", "seconds", "gpu_hours", "joules", "dollars", "target_loss")
    others = [
        f"{key.replace('_', ' ')} {value}" for key, value in state.items() if value and key not in (*OWN, *amounts)
    ]
    return "; ".join([f"Law: {law_words}", f"budget: {amount}", *others])


def _command(law: str, state: Mapping[str, str]) -> str:
    flags = [
        f"--{key.replace('_', '-')} {shlex.quote(value)}" for key, value in state.items() if value and key not in OWN
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
    """The crossover with its text, and its axis."""
    cross = answer.crossover
    words = answer.crossover_reason or "" if cross is None else f"Sparse wins {crossing_words(cross, human_cost)}"
    return PageRace(
        **answer,
        words=words[0].upper() + words[1:] + ".",
        gap=tuple(dense - sparse for dense, sparse in zip(answer.dense_loss, answer.sparse_loss, strict=True)),
        axis=AXES[answer.currency],
        ticks=tuple(_ticks(answer)),
    )


def _ticks(answer: Race) -> list[Tick]:
    """Round amounts along the axis of budgets, each with its label."""
    if not answer.budgets:
        return []
    low, high = answer.budgets[0], answer.budgets[-1]
    if answer.currency == "seconds":
        known = [Tick(value=value, text=name) for value, name in zip(TIMES, TIME_NAMES, strict=True)]
        return [tick for tick in known if low <= tick.value <= high]
    size = 3.6 if answer.currency == "joules" and high > 3.6e6 else 1  # whole watt-hours
    powers = range(math.ceil(math.log10(low / size)), math.floor(math.log10(high / size)) + 1)
    words = {"flops": lambda value: bare_exponent(f"{value:.0e}"), "joules": human_joules, "dollars": human_dollars}
    spelled = words[answer.currency]
    return [Tick(value=size * 10.0**power, text=spelled(size * 10.0**power)) for power in powers]


def no_race(currency: Currency, reason: str) -> PageRace:
    """The answer where there is no crossover to look for."""
    nothing = Race(
        currency=currency, budgets=(), dense_loss=(), sparse_loss=(), crossover=None, crossover_reason=reason
    )
    return race_words(nothing)


def problem(error: UserError) -> PageProblem:
    """An error with the fields at fault; bounds of the search are said as the page says them."""
    text, hint = error.marked
    of_field = re.match(rf"{ORIGIN}: (\w+): ", text)
    text = text[of_field.end() :] if of_field else text.removeprefix(f"{ORIGIN}: ")
    named = [error.field, of_field and of_field[1], *MARKED.findall(text)]
    bounds = [FIELDS.get(key, key) for key in BOUND.findall(text)]
    said = BOUND.sub(lambda match: f"“{bound_words(match[0])}”", text)
    fields = dict.fromkeys(name for name in (*named, *bounds) if name)
    return PageProblem(error=said, hint=hint or "", fields=tuple(fields))
