"""The best shape for a budget under constraints, by any law: every candidate at once, as columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sparsedial.errors import UserError
from sparsedial.law.fence import FAR, RUNS, Fence, fence, measured, slack, span_words
from sparsedial.law.law import Law
from sparsedial.law.literature import repeated_tokens
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.costs import Costs, serving_bytes
from sparsedial.records.quantities import Span
from sparsedial.shape.counts import active_parameters, forward_flops_per_token, total_parameters
from sparsedial.shape.shapes import Shapes

BISECTIONS = 60
NEAR_OPTIMAL = 0.005  # of the best predicted loss
MOST_TOKENS = 1e18
LIKELY = ("experts", "tokens_per_parameter", "d_model")  # what a search chooses freely, most telling first
SPENT = "budget"  # as a bound: of a law of one number of tokens
DEVICE_MEMORY = "device_memory_bytes"


@dataclass(frozen=True, kw_only=True)
class Search:
    """All candidates with what the budget buys each; arrays with one value per candidate."""

    shapes: Shapes
    tokens: np.ndarray
    seen: np.ndarray  # tokens by their worth: repeated ones count less
    loss: np.ndarray  # infinite where the law does not cover the shape
    cost: np.ndarray  # in the budget's currency
    kept: dict[str, np.ndarray]  # by constraint: which candidates respect it
    why: dict[str, str]  # of constraints that the law's runs set
    capped: dict[str, np.ndarray]  # by constraint: which candidates' tokens it limits or discounts
    likely: dict[str, np.ndarray]  # by axis: which candidates are near the law's runs, and so recommended first
    goal: np.ndarray  # what is minimised: loss, or cost with a target loss

    @property
    def allowed(self) -> np.ndarray:
        """Which candidates respect every constraint."""
        return self.allowed_without()

    def allowed_without(self, without: str | None = None) -> np.ndarray:
        """Which candidates respect every constraint but one."""
        return np.logical_and.reduce(
            [*(mask for name, mask in self.kept.items() if name != without), np.isfinite(self.goal)]
        )

    def first(self, among: np.ndarray, without: str | None = None) -> np.ndarray:
        """Those among candidates that are near the law's runs, axis by axis; an axis on which none is gives way."""
        for name, near in self.likely.items():
            if name != without and (among & near).any():
                among = among & near
        return among

    def best(self, among: np.ndarray | None = None) -> int | None:
        """Index of the best allowed candidate, or None where there is none."""
        return self._least(self.first(self.allowed if among is None else self.allowed & among))

    def _least(self, mask: np.ndarray) -> int | None:
        return int(np.argmin(np.where(mask, self.goal, np.inf))) if mask.any() else None

    def binding(self, best: int) -> list[str]:
        """Constraints without which a better candidate would be allowed, or this one trained on more text."""
        names = [name for name in self.kept if self.without(name, best) is not None]
        names += [name for name in self.likely if self._better(self.first(self.allowed, name), best) is not None]
        return names + [name for name, cut in self.capped.items() if cut[best]]

    def without(self, name: str, best: int) -> int | None:
        """The better candidate that would be allowed without a constraint; None where it does not bind."""
        return self._better(self.first(self.allowed_without(name)), best)

    def _better(self, mask: np.ndarray, best: int) -> int | None:
        found = self._least(mask)
        return found if found is not None and self.goal[found] < self.goal[best] * (1 - 1e-9) else None

    def spent(self, index: int, budget: Budget) -> float:
        """The share of the budget that a candidate's training takes; all of it with a target loss."""
        return 1.0 if budget.value is None else float(self.cost[index] / budget.value)

    def near(self, best: int) -> np.ndarray:
        """Allowed candidates within 0.5 % of the best."""
        return self.first(self.allowed) & (self.goal <= self.goal[best] * (1 + NEAR_OPTIMAL))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
    """One search: the law, the shapes, and what each token of them costs."""

    law: Law
    shapes: Shapes
    counted: Mapping[str, Any]  # the shapes in the law's variables
    budget: Budget
    constraints: Constraints
    bounds: Fence
    per_token: np.ndarray  # cost of a training token, in the budget's currency
    serving: np.ndarray  # cost of the tokens that the model will serve

    def worth(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens by their worth: repeated ones count less."""
        most = self.constraints.data_tokens
        return tokens if most is None else repeated_tokens(most, tokens)

    def loss(self, tokens: np.ndarray) -> np.ndarray:
        """What the law predicts."""
        return self.law.loss(**self.counted, tokens=self.worth(tokens))

    def affordable(self) -> np.ndarray:
        """The tokens that the target loss needs, that the law is about, or that the budget buys."""
        if self.budget.target_loss is not None:
            return _tokens_for(self.loss, self.budget.target_loss, len(self.shapes), self.bounds.tokens)
        if self.bounds.tokens is not None:
            return np.full(len(self.shapes), self.bounds.tokens)
        assert self.budget.value is not None
        return (self.budget.value - self.serving) / self.per_token

    def capped(self, tokens: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Tokens within what the data may be repeated, and which candidates' tokens the data limits or discounts."""
        data = self.constraints.data_tokens
        if data is None or self.budget.target_loss is not None or self.bounds.tokens is not None:
            return tokens, {}
        return np.minimum(tokens, data * self.constraints.max_repeats), {f"data_tokens={data:.4g}": tokens > data}

    def goal(self, tokens: np.ndarray, loss: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """What is minimised: the loss, or with a target loss the cost of reaching it."""
        if self.budget.target_loss is None:
            return loss
        return np.where(np.isfinite(loss) & (tokens < 0.99 * MOST_TOKENS), cost, np.inf)


def search(law: Law, shapes: Shapes, budget: Budget, constraints: Constraints, costs: Costs) -> Search:
    """Tokens, loss and constraints of every candidate, inside the law's fence.

    Raises: UserError where the law cannot be asked about any of the shapes.
    """
    bounds, per_token = fence(law), costs.per_token(shapes, budget.currency)
    covered = bounds.covers(shapes.experts_per_choice)
    if not covered.any():
        raise UserError(f"no shape can be planned: {bounds.says[0]}", hint="allow more experts, or another top_k")
    serving = _serving_cost(shapes, per_token, constraints, costs)
    asked = _Asked(
        law=law,
        shapes=shapes,
        counted=law.count(shapes),
        budget=budget,
        constraints=constraints,
        bounds=bounds,
        per_token=per_token,
        serving=serving,
    )
    tokens, capped = asked.capped(asked.affordable())
    least = least_tokens(law, constraints)
    enough = np.maximum(tokens, least)
    loss = np.where(covered & (tokens >= least), asked.loss(enough), np.inf)
    cost = tokens * per_token + serving
    kept = _kept(shapes, constraints, costs, tokens)
    if budget.value is not None and bounds.tokens is not None:
        kept[SPENT] = cost <= budget.value * 1.02
    axes = {*(hold.axis for hold in bounds.holds), *LIKELY} & set(bounds.ranges)
    values = measured(law, shapes, enough, partial(costs.per_token, shapes, "flops"), axes)
    factors = bounds.beyond(values)
    return Search(
        shapes=shapes,
        tokens=tokens,
        seen=asked.worth(enough),
        loss=loss,
        cost=cost,
        kept=kept | {hold.name: factors[hold.axis] <= slack(hold.axis) for hold in bounds.holds},
        why={hold.name: hold.why for hold in bounds.holds},
        capped=capped,
        likely={
            _far_words(axis, bounds.ranges[axis]): bounds.near(axis, values[axis], factors[axis])
            for axis in LIKELY
            if axis in axes
        },
        goal=asked.goal(tokens, loss, cost),
    )


def _far_words(axis: str, span: Span) -> str:
    return f"{RUNS}{span_words(axis, span)}: more than {FAR:g} times beyond is not recommended first"


def least_tokens(law: Law, constraints: Constraints) -> float:
    """The fewest tokens that are considered; fewer where the law was fitted to shorter runs."""
    return min(constraints.least_tokens, law.fitted_range.get("tokens", [math.inf])[0])


def _serving_cost(shapes: Shapes, per_token: np.ndarray, constraints: Constraints, costs: Costs) -> np.ndarray:
    """What the inference tokens cost: a forward pass each, a third of a training step or less."""
    if not constraints.inference_tokens:
        return np.zeros(len(shapes))
    training = costs.per_token(shapes, "flops")
    share = forward_flops_per_token(shapes, costs.context) / training  # type: ignore[arg-type]
    return constraints.inference_tokens * per_token * share


def _tokens_for(
    loss_of: Callable[[np.ndarray], np.ndarray], target: float, count: int, fixed: float | None
) -> np.ndarray:
    """Tokens at which each candidate reaches the target loss, by bisection; `MOST_TOKENS` where it never does."""
    if fixed is not None:
        tokens = np.full(count, fixed)
        return np.where(loss_of(tokens) <= target, tokens, MOST_TOKENS)
    low, high = np.zeros(count), np.full(count, np.log(MOST_TOKENS))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        reached = loss_of(np.exp(middle)) <= target
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return np.exp(high)


def _kept(shapes: Shapes, bounds: Constraints, costs: Costs, tokens: np.ndarray) -> dict[str, np.ndarray]:
    kept: dict[str, np.ndarray] = {}

    def keep(name: str, value: Any, mask: Any) -> None:
        if value is not None:
            kept[f"{name}={value:.4g}"] = np.asarray(mask)

    if bounds.max_total_parameters is not None:
        total = total_parameters(shapes)  # type: ignore[arg-type]
        keep("max_total_parameters", bounds.max_total_parameters, total <= bounds.max_total_parameters)
    if bounds.max_active_parameters is not None:
        active = active_parameters(shapes)  # type: ignore[arg-type]
        keep("max_active_parameters", bounds.max_active_parameters, active <= bounds.max_active_parameters)
    if bounds.max_experts is not None:
        keep("max_experts", bounds.max_experts, shapes.experts <= bounds.max_experts)
    if bounds.top_k is not None:
        keep("top_k", bounds.top_k, (shapes.top_k == bounds.top_k) | (shapes.experts == 0))
    if bounds.sparsity is not None:
        keep("sparsity", bounds.sparsity, np.abs(shapes.sparsity - bounds.sparsity) < 1e-4)
    if bounds.training_memory_bytes is not None:
        needed = costs.training_bytes(shapes)
        keep("memory_bytes", bounds.training_memory_bytes, needed <= bounds.training_memory_bytes)
    elif costs.device_bytes is not None:
        most = costs.devices * costs.device_bytes
        keep(DEVICE_MEMORY, most, costs.training_bytes(shapes) <= most)
    if bounds.serving_memory_bytes is not None:
        needed = serving_bytes(shapes, bounds.serving_positions, bounds.serving_sequences)
        keep("serving_memory_bytes", bounds.serving_memory_bytes, needed <= bounds.serving_memory_bytes)
    if bounds.min_decode_tokens_per_second is not None:
        speed = costs.decoding(shapes, bounds.serving_positions)
        if speed is None:
            raise UserError(
                "a decoding speed needs a device whose bandwidth is known", hint="for example h100", field="device"
            )
        keep(
            "decode_tokens_per_second",
            bounds.min_decode_tokens_per_second,
            speed >= bounds.min_decode_tokens_per_second,
        )
    if bounds.data_tokens is not None:
        most = bounds.data_tokens * bounds.max_repeats
        keep("data_tokens", bounds.data_tokens, tokens <= most * (1 + 1e-9))
    return kept
