"""From a budget of speed, energy or quality to the setting of a dial that keeps it, by the figures of `dial.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sparsedial.errors import UserError
from sparsedial.records.dial_file import DialFile, DialPoint
from sparsedial.units import human_percent

Amount = Callable[[DialPoint, DialFile], float | None]  # None where it was not measured


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a budget limits, and which of the settings that keep it is the best."""

    amount: Amount
    least: bool  # whether the limit is the least that is allowed, not the most
    best: Amount  # the smallest is
    reason: str  # with the limit in words
    words: Callable[[float], str]

    def keeps(self, amount: float, limit: float) -> bool:
        """Whether an amount is within a limit."""
        return amount >= limit if self.least else amount <= limit


def _speed(point: DialPoint, dial: DialFile) -> float | None:
    rate = point.costs and point.costs.decode_tokens_per_second
    return rate and rate.median


def _energy(point: DialPoint, dial: DialFile) -> float | None:
    energy = point.costs and point.costs.joules_per_token
    return energy and energy.joules


def _loss(point: DialPoint, dial: DialFile) -> float | None:
    return point.loss_increase and point.loss_increase.mean


def _surely_added(point: DialPoint, dial: DialFile) -> float | None:
    """The upper end of the added loss, as a share of the default's loss."""
    default = next((one.costs for one in dial.settings if one.setting.name == dial.default), None)
    grown = point.loss_increase
    if grown is None or default is None:
        return None
    (scored,) = default.loss.values()
    return (grown.mean if grown.high is None else grown.high) / scored.loss


def choose(dial: DialFile, kind: str, limit: float) -> tuple[DialPoint, str]:
    """The best setting that keeps a budget, and why it is the one.

    Raises: UserError where none does, with the nearest.
    """
    budget = BUDGETS[kind]
    amounts = {point.setting.name: (point, budget.amount(point, dial)) for point in dial.settings}
    known = [(point, amount) for point, amount in amounts.values() if amount is not None]
    if not known:
        raise UserError("no setting of the checkpoint was measured", hint="measure its dial again", field=kind)
    kept = [point for point, amount in known if budget.keeps(amount, limit)]
    if kept:
        best = min(kept, key=lambda point: (budget.best(point, dial) or 0.0, point.setting.active_parameters))
        return best, budget.reason.format(budget.words(limit))
    nearest, amount = (max if budget.least else min)(known, key=lambda one: one[1])
    raise UserError(
        f"no setting keeps {budget.words(limit)}: the nearest is {nearest.setting.name} with {budget.words(amount)}",
        hint=f"<setting> {nearest.setting.name} takes it as it is",
        field=kind,
    )


def _digits(value: float) -> str:
    """Three significant digits, or a whole number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


BUDGETS: Mapping[str, Budget] = {
    "at_least": Budget(
        amount=_speed,
        least=True,
        best=_loss,
        reason="lowest loss that keeps at least {}",
        words=lambda rate: f"{_digits(rate)} tokens/s",
    ),
    "at_most": Budget(
        amount=_energy,
        least=False,
        best=_loss,
        reason="lowest loss that keeps at most {}",
        words=lambda joules: f"{_digits(100 * joules)} J per 100 tokens",
    ),
    "max_loss_increase": Budget(
        amount=_surely_added,
        least=False,
        best=_energy,
        reason="cheapest that keeps loss_increase ≤ {}",
        words=human_percent,
    ),
}
