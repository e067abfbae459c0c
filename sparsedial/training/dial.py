"""Training for the dial: the number of experts that tokens visit changes from step to step."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sparsedial.errors import UserError
from sparsedial.records.recipe import Recipe
from sparsedial.records.trained_for import TrainedFor
from sparsedial.shape.counts import training_flops_per_expert
from sparsedial.shape.shape import Shape
from sparsedial.text.permutation import mix

LAST_SHARE = 0.1  # of the steps, at the end, in which every layer has the same number
SALT = 0x6469616C  # keeps these draws apart from the order of windows, which is drawn from the same seed


@dataclass(frozen=True, kw_only=True)
class Draws:
    """How many experts tokens visit: a function of these values, the step and the layer, so that resuming is exact.

    In each run of `len(numbers)` steps each number comes once, in an order that is drawn; with `by="layer"` each layer
    has its own order. So runs of several seeds cost the same, up to the last few steps. The last tenth of the steps has
    the highest number everywhere, or the lowest.

    The sources draw each step's or layer's number by itself, evenly. Matryoshka MoE ends on no number of its own;
    MoE-PHDS ends with a short schedule at the lowest, without a share that we could take over: the tenth is ours, and
    so is an end at the highest, which `benchmarks/dial_training.py` compares with it.

    Source: Matryoshka MoE, Wang et al. 2025 (arXiv 2509.26520); MoE-PHDS, Hannah et al. 2025 (arXiv 2509.23012)
    """

    dial: TrainedFor
    seed: int
    steps: int
    layers: int  # with the modules of multi-token prediction

    @staticmethod
    def of(dial: TrainedFor, shape: Shape, recipe: Recipe) -> Draws:
        """The draws of a run."""
        return Draws(dial=dial, seed=recipe.seed, steps=recipe.steps, layers=shape.layers + shape.mtp_layers)

    @property
    def drawn_steps(self) -> int:
        """Steps before those that all have one number."""
        return self.steps - max(1, round(LAST_SHARE * self.steps))

    @property
    def last(self) -> int:
        """The number of the last steps."""
        return self.dial.top_k_experts[0 if self.dial.end == "lowest" else -1]

    def at(self, step: int) -> tuple[int, ...]:
        """The number of each layer in a step."""
        return _drawn(self, step)

    def order(self, block: int, layer: int) -> list[int]:
        """The order in which the numbers of the list come in some steps of a layer."""
        key = mix(mix(mix(SALT + self.seed) + block) + layer)
        return sorted(self.dial.top_k_experts, key=lambda number: mix(key + number))

    def counts(self, layer: int, first_steps: int | None = None) -> Counter[int]:
        """How many steps of the run, or of its first ones, have each number in a layer."""
        numbers, steps = self.dial.top_k_experts, self.steps if first_steps is None else first_steps
        drawn = min(steps, self.drawn_steps)
        whole, rest = divmod(drawn, len(numbers))
        found = Counter(dict.fromkeys(numbers, whole))
        found.update(self.at(step)[layer] for step in range(drawn - rest, drawn))
        found[self.last] += steps - drawn
        return found


@functools.lru_cache(maxsize=4096)
def _drawn(draws: Draws, step: int) -> tuple[int, ...]:
    """The number of each layer in a step; kept, because a guard against spikes asks for the same steps again."""
    if step >= draws.drawn_steps:
        return (draws.last,) * draws.layers
    block, place = divmod(step, len(draws.dial.top_k_experts))
    if draws.dial.by == "step":
        return (draws.order(block, 0)[place],) * draws.layers
    return tuple(draws.order(block, layer)[place] for layer in range(draws.layers))


def comparable(losses: Sequence[float], step: int, draws: Draws | None) -> Sequence[float]:
    """Those of the losses just before a step whose tokens visited at most as many experts as in it.

    Fewer experts raise a loss, and that is no spike.
    """
    if draws is None:
        return losses
    most, first = sum(draws.at(step)), step - len(losses)
    return [loss for index, loss in enumerate(losses, start=first) if sum(draws.at(index)) <= most]


def spared_flops(dial: TrainedFor, shape: Shape, recipe: Recipe) -> int:
    """Training FLOPs that a run needs less than one whose tokens visit `top_k` experts in every step."""
    draws = Draws.of(dial, shape, recipe)
    spared = 0
    for number in range(draws.layers):
        layer = shape.layer(number)
        counts = draws.counts(number) if number < shape.layers else _predicting(draws, number, recipe)
        fewer = sum(steps * max(0, layer.top_k - top_k) for top_k, steps in counts.items())
        spared += fewer * training_flops_per_expert(shape, layer)
    return spared * recipe.batch * recipe.context


def _predicting(draws: Draws, number: int, recipe: Recipe) -> Counter[int]:
    """How many of the steps that train a module of multi-token prediction have each number in it."""
    early = draws.counts(number, recipe.late_step)
    late = draws.counts(number) - early
    return (early if recipe.mtp_weight > 0 else Counter()) + (late if recipe.mtp_late_weight > 0 else Counter())


def require_dial(dial: TrainedFor, shape: Shape) -> None:
    """Refuse numbers that a model cannot be trained for.

    Raises: UserError.
    """
    numbers = dial.top_k_experts
    spelled = ",".join(map(str, numbers))
    if len(numbers) < 2:
        raise UserError(f"'{spelled}' is a single number", hint="give several, like 2,4,8", field="dial")
    if min(numbers) < 1:
        raise UserError(f"{min(numbers)} experts are none: a token visits at least one", field="dial")
    if list(numbers) != sorted(set(numbers)):
        raise UserError(f"{spelled} are not different numbers, the lowest first", field="dial")
    if not shape.experts:
        raise UserError("a dense model has no experts to choose from", hint="like <shape.experts> 32", field="dial")
    if max(numbers) > shape.experts:
        raise UserError(f"{max(numbers)} is more than the model's {shape.experts} experts", field="dial")
    if max(numbers) != shape.top_k:
        raise UserError(
            f"the highest number is {max(numbers)}, and the model's tokens visit top_k={shape.top_k} experts",
            hint=f"let the numbers end with {shape.top_k}, or train another model with <shape.top_k>",
            field="dial",
        )
    if shape.top_p < 1:
        raise UserError(
            f"with top_p={shape.top_p:g} each token has its own number of experts, which no dial sets",
            hint="leave <shape.top_p> at 1",
            field="dial",
        )
