"""The design of a study: the machine's profile, and the layout that fits the question."""

from __future__ import annotations

import math
from collections.abc import Callable

from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.machine.card import Card
from sparsedial.machine.profile import Measure, Profile
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.ladder import RUNGS, Ladder
from sparsedial.shape.shape import Shape
from sparsedial.sweep.at_once import AtOnce, Room
from sparsedial.sweep.budgets import PROCESS_BYTES, REPORT_SECONDS, batches, fastest, fit_to_time, smallest
from sparsedial.sweep.crossing import Crossing
from sparsedial.sweep.lab import nobody
from sparsedial.sweep.layout import START_RUNGS, Layout, first_width, lay, too_small
from sparsedial.sweep.question import LEAST_SECONDS, Question
from sparsedial.units import human_bytes, human_count, human_seconds, spelled_at_least

PLANNED_SHARE = 0.82  # of the time, for the predicted layout; the rest is for wider brackets and a busy machine
PROFILE_SHARE, PROFILE_LEAST, PROFILE_MOST = 0.02, 8.0, 90.0
PROFILE_FLOPS_PER_SECOND = 2e10  # about the speed of one core
FASTEST_FLOPS_PER_SECOND = 1e11  # no core is this fast: a grid that needs more is refused without measuring
PROFILE_WIDTHS, LONG_WIDTHS = (16, 32, 64), (16, 32, 64, 128)
# Of a GPU's peak: what the largest budget of a study takes of it over the whole time, and what a run's steps reach.
# From simulated studies on an H100, whose widths depend on it by a fourth root; no card has been measured.
TOP_SHARE, REACHED_SHARE = 1e-3, 0.05
CARD_LEAST_WIDTH, CARD_WIDTHS = 32, 4  # the narrowest that a GPU's profile times, and how many
PROFILE_BATCH = 8  # sequences of a timed step, at most; a GPU's time does not grow with them as a CPU's does
PARAMETER_BYTES = 20  # per parameter that a worker trains
EVALUATION_LEAST, EVALUATION_MOST = 1 << 16, 1 << 18  # validation tokens that score a cell
LEAST_CHECKED = 3  # budgets with which a law can be checked: two that it is fitted to, and one held out
SMALLER_BATCHES = (8, 4)  # tried next where the stated budgets are too small for the batch


def design(
    question: Question,
    vocab_size: int,
    measure: Measure,
    elapsed_seconds: Callable[[], float],
    crossing: Crossing | None = None,
    room: Room | None = None,
    prepare: Callable[[Layout], None] | None = None,
    elsewhere: Callable[[], int] = nobody,
) -> tuple[Layout, Profile]:
    """Refuse impossible questions, measure the machine, and lay the grid that the time or the budgets allow.

    `crossing` says what is trained on shares of the text after the verdict; its time is kept for it. Models that a
    GPU's `room` does not hold are left out. `prepare` is what a grid needs before its first run: it is done, and its
    time counted. `elsewhere` gives the workers of other machines: those are planned with that have come by then.

    Raises: UserError with the minimum where no grid fits.
    """
    draft = _draft(question, vocab_size)
    if room is not None:
        draft = _held_by(room, draft)
    _refuse_early(question, draft, elsewhere())
    batch, context = draft.batch if question.on_gpu else min(draft.batch, PROFILE_BATCH), draft.ladder.context
    shapes = profile_shapes(question, draft)
    if room is not None:
        shapes = room.together(shapes, batch, context)
    profile = measure(shapes, batch, context, profile_seconds(question))

    def lay_now() -> Layout:
        at_once = AtOnce(numbers=[number + elsewhere() for number in question.at_once], room=room)
        return _laid(question, draft, profile, at_once, elapsed_seconds(), crossing)

    return lay_now() if prepare is None else _prepared(lay_now, prepare), profile


def _prepared(lay_now: Callable[[], Layout], prepare: Callable[[Layout], None]) -> Layout:
    """The grid that the time allows after it was prepared.

    How long that takes is known when it is done. Where it took time that the grid needs, a smaller one is laid and
    prepared; this ends, since each is smaller than the one before.
    """
    layout = lay_now()
    while True:
        prepare(layout)
        again = lay_now()
        if again.cells == layout.cells and again.batch == layout.batch:
            return again
        layout = again


def require_possible(question: Question, vocab_size: int, elsewhere: int = 0) -> None:
    """Raises: UserError for a question that no machine can answer, so that nothing is spent on it."""
    _refuse_early(question, _draft(question, vocab_size), elsewhere)


def _draft(question: Question, vocab_size: int) -> Layout:
    inputs = question.inputs
    return Layout(
        ladder=Ladder(
            vocab_size=vocab_size,
            context=question.context,
            top_k=inputs.top_k,
            shared_experts=inputs.shared_experts,
        ),
        batch=inputs.batch,
        budgets=inputs.budgets,
        experts=question.experts(),
        seeds=question.seeds,
        max_total_parameters=_parameter_bound(question),
        cell_seeds=inputs.cell_seeds,
        optimizers=question.optimizers,
    )


def _parameter_bound(question: Question) -> float | None:
    """The lower of the stated bound and what the stated memory allows each process (the workers and the command)."""
    inputs = question.inputs
    bounds = [inputs.max_total_parameters] if inputs.max_total_parameters else []
    if inputs.memory:
        left = inputs.memory / (question.processes + 1) - PROCESS_BYTES
        bounds.append(max(left, 0.0) / PARAMETER_BYTES)
    return min(bounds) if bounds else None


def profile_shapes(question: Question, draft: Layout) -> list[Shape]:
    """The shapes whose steps are timed; they span the grid."""
    experts = draft.experts
    widths = LONG_WIDTHS if question.long else PROFILE_WIDTHS
    if question.card is not None:
        widths = card_widths(question.card, question)
    spanning = [
        draft.ladder.shape(width, count) for width in widths for count in dict.fromkeys((0, *experts[1:2], experts[-1]))
    ]
    return spanning + [draft.ladder.shape(48, count) for count in experts]


def card_widths(card: Card, question: Question) -> tuple[int, ...]:
    """The widths that a GPU's profile times: up to the widest that the largest budget begins with."""
    budgets = question.inputs.budgets
    top = budgets[-1] if budgets else TOP_SHARE * card.flops_per_second * question.limit_seconds
    rungs = [rung for rung in sorted(RUNGS) if rung >= CARD_LEAST_WIDTH]
    centre = min(range(len(rungs)), key=lambda at: abs(math.log(rungs[at] / first_width(top))))
    last = min(max(centre + 1, CARD_WIDTHS - 1), len(rungs) - 1)
    return tuple(rungs[round(number * last / (CARD_WIDTHS - 1))] for number in range(CARD_WIDTHS))


def profile_seconds(question: Question) -> float:
    """Seconds for measuring the machine: with stated budgets about those of one largest cell."""
    budgets, card = question.inputs.budgets, question.card
    rate = PROFILE_FLOPS_PER_SECOND if card is None else REACHED_SHARE * card.flops_per_second
    wanted = budgets[-1] / rate if budgets else PROFILE_SHARE * question.limit_seconds
    return min(max(wanted, PROFILE_LEAST), PROFILE_MOST)


def _held_by(room: Room, draft: Layout) -> Layout:
    """The draft without the models that a GPU does not hold.

    Raises: UserError with the bytes where it holds fewer than three sizes.
    """
    context, card = draft.ladder.context, room.card
    least = [draft.ladder.shape(rung, count) for rung in sorted(RUNGS)[:START_RUNGS] for count in draft.experts]
    needed = room.bytes_of(least, draft.batch, context)
    if needed > card.free:
        fits = next((batch for batch in batches(draft.batch) if room.bytes_of(least, batch, context) <= card.free), 0)
        raise UserError(
            f"a step of the smallest grid of this study needs {human_bytes(needed)}, and {card.words}",
            hint=f"{fits} fits" if fits else "no batch fits: give a shorter <context>, or wait for the card",
            field="batch",
        )
    most = room.most_parameters(draft)
    if most is None:
        return draft
    most = max(most, *map(total_parameters, least))
    return replace(draft, max_total_parameters=min(most, draft.max_total_parameters or most))


def left_out(question: Question, layout: Layout) -> bool:
    """Whether a GPU's memory left models out of the grid."""
    return lay(replace(layout, max_total_parameters=_parameter_bound(question))) != layout.cells


def _laid(
    question: Question,
    draft: Layout,
    profile: Profile,
    at_once: AtOnce,
    elapsed_seconds: float,
    crossing: Crossing | None,
) -> Layout:
    probe_tokens = question.probe_tokens
    if question.inputs.budgets:
        layout = _lay_budgets(draft)
        return replace(layout, predicted_seconds=fastest(layout, profile, at_once, probe_tokens, crossing)[1])
    beside = elapsed_seconds + REPORT_SECONDS
    seconds = PLANNED_SHARE * (question.limit_seconds - beside)

    def whole_seconds(planned: float) -> float:
        return planned / PLANNED_SHARE + beside

    return fit_to_time(_drafts(question, draft), profile, seconds, at_once, whole_seconds, probe_tokens, crossing)


def _drafts(question: Question, draft: Layout) -> list[Layout]:
    """The draft with each set of budget ratios that suits its time, and with each choice of optimizers; best first.

    A law that can be checked comes before a second optimizer, and that before a fourth budget.
    """
    wanted = draft.optimizers if question.inputs.optimizers else draft.optimizers[:1]
    drafts = [
        replace(draft, budgets=tuple(1e9 * ratio for ratio in ratios), optimizers=optimizers)
        for ratios in question.ratios
        for optimizers in dict.fromkeys((draft.optimizers, wanted))
    ]
    return sorted(drafts, key=lambda one: (len(one.budgets) < LEAST_CHECKED, -len(one.optimizers)))


def _lay_budgets(draft: Layout) -> Layout:
    """The layout of stated budgets, with the largest batch that allows three sizes.

    Raises: UserError where no batch does.
    """
    sizes = [draft.batch, *(batch for batch in SMALLER_BATCHES if batch < draft.batch)]
    options = [replace(draft, batch=batch) for batch in sizes]
    for option in options:
        cells = lay(option)
        if cells is not None:
            return replace(option, cells=cells)
    raise too_small(options[-1])


def evaluation_tokens(layout: Layout) -> int:
    """Validation tokens per cell: enough for little scoring noise, few enough for cheap scoring."""
    least = min(layout.tokens(cell) for cell in layout.cells)
    return int(min(max(EVALUATION_LEAST, least // 4), EVALUATION_MOST))


def _refuse_early(question: Question, draft: Layout, elsewhere: int) -> None:
    """Refuse what no machine allows, before measuring this one.

    Raises: UserError for a time, a bound on parameters or a memory that is too small, or a context too long.
    """
    limit = question.limit_seconds
    if limit < LEAST_SECONDS:
        raise UserError(
            f"{human_seconds(limit)} is too short for any grid", hint="the minimum is about 3m", field="time"
        )
    _refuse_few_parameters(question, draft)
    if question.inputs.budgets:
        _lay_budgets(draft)
        return
    least = smallest(_drafts(question, draft))
    flops, workers = least.flops + 3 * least.seeds * least.budgets[-1], question.processes + elsewhere
    if question.inputs.device == "cpu" and flops > FASTEST_FLOPS_PER_SECOND * workers * limit:
        usual = spelled_at_least(flops / (PROFILE_FLOPS_PER_SECOND * workers))
        raise UserError(
            f"{human_seconds(limit)} is too short for {flops:.1e} FLOPs, the smallest grid with these settings",
            hint=f"at a core's usual speed it takes about {usual}; a shorter <context> or fewer seeds need less",
            field="time",
        )


def _refuse_few_parameters(question: Question, draft: Layout) -> None:
    """Raises: UserError where the sparsest level does not have three sizes below the bound."""
    experts, inputs = max(draft.experts), question.inputs
    least = total_parameters(draft.ladder.shape(sorted(RUNGS)[START_RUNGS - 1], experts))
    bound = draft.max_total_parameters
    if bound is None or bound >= least:
        return
    if inputs.max_total_parameters is None or bound < inputs.max_total_parameters:
        field, asked = "memory", human_bytes(inputs.memory or 0.0)
        wanted = human_bytes(_rounded_up((question.processes + 1) * (PROCESS_BYTES + PARAMETER_BYTES * least)))
    else:
        field, asked = "max_total_parameters", human_count(inputs.max_total_parameters)
        wanted = human_count(_rounded_up(least))
    raise UserError(
        f"{asked} is too small for three sizes with {experts} experts",
        hint=f"give {wanted} or more, or fewer experts",
        field=field,
    )


def _rounded_up(value: float) -> float:
    """The value rounded up to three digits, as units are written: the minimum in an error must be enough."""
    digit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / digit) * digit
