"""What leaving data out did, for README.md and docs/data.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.selection_effect import SIDES, Arm, MeasuredArms
from sparsedial.records.effect import Effect, EffectPoint, EqualTotal, Part
from sparsedial.records.evaluation import PairedDifference
from sparsedial.records.kept import StudySelection
from sparsedial.records.quantities import Interval
from sparsedial.records.record import read
from sparsedial.records.study import Study
from sparsedial.showing.numbers import with_interval
from sparsedial.showing.report_kept import kept_sentences
from sparsedial.showing.words import power_of_ten
from sparsedial.store import read_json
from sparsedial.sweep.effect_words import outcome
from sparsedial.units import human_bytes, human_count, human_percent, human_seconds, signed

RECORDS = Path(__file__).parent / "records"
DIRTIED, BOTH = RECORDS / "dirtied.json", RECORDS / "both_study" / "study.json"
EFFECT, EFFECT_OF_DIRT = RECORDS / "selection_effect.json", RECORDS / "selection_effect_dirtied.json"
ALT = "Test loss of the best dense and the best sparse model by the share of the text that stays"
KINDS = {
    "exact": "exact copies: other white space, other forms of Unicode",
    "near": "near copies: at least 0.8 alike",
    "less alike": "copies that are less alike",
    "menu": "menus: links, bullet points, beginnings of articles",
    "notice": "60 words of real text under one notice of 130 words",
    "language": "other languages",
    "item": "items of tasks between real text",
}
DIRECTIONS = {
    "grows": "gains with the budget",
    "shrinks": "falls back with the budget",
    "unresolved": "does not measurably change with the budget",
}
FILTERS = {
    "copies": "copies",
    "spans": "`--spans 0.5`",
    "tasks": "`--tasks`",
    **{name: f"`{name}`" for name in ("gopher", "c4", "fineweb")},
}


def dirtied_table() -> str:
    """Of each kind that was planted the share that each filter left out, and of real text by domain."""
    found: dict[str, Any] = read_json(DIRTIED)
    filters = {name: found["filters"][name] for name in FILTERS}
    heads = f"| | documents | {' | '.join(FILTERS.values())} |"
    planted = [
        f"| {says} | {amount['documents']:,} |"
        + "".join(f" {_share(one['found'][kind], amount['documents'])} |" for one in filters.values())
        for kind, says in KINDS.items()
        for amount in [found["planted"][kind]]
    ]
    domains = [
        f"| real text, of its bytes: {domain} | {amount['documents']:,} |"
        + "".join(f" {_share(one['real_taken_bytes'][domain], amount['bytes'])} |" for one in filters.values())
        for domain, amount in found["domains"].items()
    ]
    return "\n".join([heads, f"|{' --- |' * (2 + len(FILTERS))}", *planted, *domains])


def _share(part: int, whole: int) -> str:
    if part == 0:
        return "–"
    return "all" if part == whole else human_percent(part / whole, 3)


def _measured(*records: Path) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """A block of a page that says which record it waits for, until that is there."""

    def block(make: Callable[[], str]) -> Callable[[], str]:
        def made() -> str:
            missing = [record for record in records if not record.exists()]
            return f"Not measured yet: `benchmarks/records/{missing[0].relative_to(RECORDS)}`." if missing else make()

        return made

    return block


@_measured(EFFECT)
def effect_table() -> str:
    """The arms at both budgets: what stays, and the differences to a random part and to the full text."""
    return _effects(EFFECT)


@_measured(EFFECT_OF_DIRT)
def effect_of_dirt() -> str:
    """The same for the dirtied text."""
    return _effects(EFFECT_OF_DIRT)


def _effects(record: Path) -> str:
    found = read(record, MeasuredArms)
    heads = [
        "| selection | FLOPs | tokens | of its part | kept − random | kept − full | paid − random |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows = [row for arm in found.arms.values() for row in _rows(arm)]
    sentences = [f"* `{' '.join(arm.settings)}`: {_found(arm.effect)}" for arm in found.arms.values()]
    return "\n".join([*heads, *rows, "", *sentences, *_chosen(found), "", _link(record)])


def _link(record: Path) -> str:
    """A link to a record, from a page in docs/."""
    return f"[Every number](../benchmarks/records/{record.relative_to(RECORDS)})."


def _found(effect: Effect) -> str:
    """The outcome at the larger budget, and where the leads go."""
    paid = effect.equal_total
    total = f"; with the score paid {_outcome(paid)}" if paid else ""
    leads = {"the random part": effect.direction_over_budgets, "the full text": effect.direction_against_full}
    if len(set(leads.values())) == 1:
        leads = {"both": effect.direction_over_budgets}
    each = ", ".join(f"against {part} it {DIRECTIONS[direction]}" for part, direction in leads.items())
    return f"at {power_of_ten(effect.budgets_flops[-1])} FLOPs {_outcome(effect)}{total}; {each}."


def _outcome(found: Effect | EqualTotal) -> str:
    return outcome(found.winner, found.kept_minus_random[-1], found.kept_minus_full[-1])


def _rows(arm: Arm) -> list[str]:
    effect, paid = arm.effect, arm.effect.equal_total
    paid_for = dict(zip(paid.budgets_flops, paid.kept_minus_random, strict=True)) if paid else {}
    without = "costs too much" if effect.plan.inputs.selection_flops else "costs nothing"
    return [
        f"| `{' '.join(arm.settings)}` | {power_of_ten(point.budget_flops)} | {human_count(point.tokens)}"
        f" | {point.repeats:.2g} times | {_difference(random)} | {_difference(full)}"
        f" | {_difference(paid_for[point.budget_flops]) if point.budget_flops in paid_for else without} |"
        for point, random, full in zip(
            _points(effect, "kept"), effect.kept_minus_random, effect.kept_minus_full, strict=True
        )
    ]


def _points(effect: Effect, part: Part) -> list[EffectPoint]:
    return [point for point in effect.points if point.part == part]


def _difference(found: PairedDifference | None) -> str:
    if found is None or found.low is None or found.high is None:
        return "–"
    return f"{signed(found.mean)} ({signed(found.low)} to {signed(found.high)})"


def _chosen(found: MeasuredArms) -> list[str]:
    """The side that validation text chooses."""
    if found.chosen_side is None:
        return []
    losses = {name: _points(found.arms[name].effect, "kept")[-1].validation_loss for name in SIDES}
    each = ", ".join(f"{name} {with_interval(loss)}" for name, loss in losses.items() if loss)
    return [
        f"* Validation loss of the kept part at the larger budget: {each}. So the side is `{found.chosen_side}`; the"
        " differences above are of test text."
    ]


@_measured(EFFECT)
def domains_table() -> str:
    """Test loss by domain and bits per byte of probes at the larger budget: full, random, and each side."""
    found = read(EFFECT, MeasuredArms)
    first = found.arms[SIDES[0]].effect
    columns = {part: _points(first, part)[-1] for part in ("full", "random")}
    sides = {name: _points(found.arms[name].effect, "kept")[-1] for name in SIDES}
    points = list({**columns, **sides}.values())
    heads = f"| | {' | '.join([*columns, *sides])} |"
    domains = [_values(name, [_of(point.domains, name) for point in points]) for name in points[0].domains or {}]
    probes = [
        _values(f"probes, {kind} (bits per byte)", [_of(point.probes, kind) for point in points])
        for kind in points[0].probes or {}
    ]
    return "\n".join([heads, f"|{' --- |' * (1 + len(points))}", *domains, *probes])


def _of(values: Any, name: str) -> Interval | None:
    return values and values.get(name)


def _values(name: str, values: list[Interval | None]) -> str:
    return f"| {name} | {' | '.join('–' if one is None else with_interval(one) for one in values)} |"


@_measured(BOTH)
def both() -> str:
    """The picture of both sparsities, what it rests on, and by how much the best pair leads."""
    return "\n".join([*_picture("docs/figures"), f"{_lead()} [All differences](docs/data.md#what-it-did)."])


@_measured(BOTH)
def both_in_docs() -> str:
    """The same with every sentence of the study, for docs/data.md."""
    said = [f"* {sentence}" for sentence in kept_sentences(_selection())]
    return "\n".join([*_picture("figures"), "", *said, "", _link(BOTH)])


def _selection() -> StudySelection:
    found = read(BOTH, Study).selection
    assert found is not None
    return found


def _picture(figures: str) -> list[str]:
    study = read(BOTH, Study)
    return [
        f"![{ALT}]({figures}/kept_shares.svg)",
        "",
        f"{study.cells.finished} cells over {len(study.sparsities)} sparsities and {len(study.budgets_flops)} budgets"
        f" up to {power_of_ten(study.budgets_flops[-1])} FLOPs, on {human_bytes(study.text.bytes)} of text, its shares"
        f" by `{_selection().method}`, {human_seconds(study.wall_seconds)} on {study.machine.cores} cores.",
    ]


def _lead() -> str:
    """How far the best pair is ahead of the next one, at equal training FLOPs."""
    found = _selection()
    best, other, gap = found.best, found.next_best, found.gap
    if found.undecided or best is None or other is None or gap is None or gap.low is None or gap.high is None:
        return "Which pair is best is undecided."
    return (
        f"The {best.family} model on {_of_text(best.kept)} is ahead of the {other.family} model on"
        f" {_of_text(other.kept)} by {-gap.mean:.3f} nats per token ({-gap.high:.3f} to {-gap.low:.3f})."
    )


def _of_text(kept: float) -> str:
    return "the full text" if kept == 1 else f"{human_percent(kept)} of it"


@_measured(EFFECT)
def shares_kept() -> str:
    """The share of each domain's train text that each side keeps."""
    arms = read(EFFECT, MeasuredArms).arms
    names = {name: one for name, one in arms.items() if one.domains}
    domains = next(iter(names.values())).domains or {}
    heads = f"| of the train text | before | {' | '.join(f'kept, {name}' for name in names)} |"
    rows = [
        f"| {domain} | {human_percent(amounts.share_before or 0)} |"
        + "".join(f" {human_percent((one.domains or {})[domain].share_after or 0)} |" for one in names.values())
        for domain, amounts in domains.items()
    ]
    return "\n".join([heads, f"|{' --- |' * (2 + len(names))}", *rows])
