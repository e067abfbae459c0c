"""The recipe of a run: all inputs of its training but the shape and the text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from sparsedial.errors import UserError

RECIPE_VERSION = 5  # rises when the same recipe gives other numbers
HALF_VERSION = 6  # the same, of recipes in bfloat16
FROZEN_SHARE = 0.05  # of a run, at its end, in which the routing bias is constant
LATE_SHARE = 0.67  # of a run; then multi-token prediction has a lower weight: 10 of DeepSeek-V3's 14.8 T tokens
MOST_COUNT = 2**31  # largest number of steps, sequences or positions
MOST_SIZE = 1e9  # largest rate, weight or threshold
MOST = {"seed": 2**62 - 1, **dict.fromkeys(("beta1", "beta2", "warmup_share", "decay_share"), 1)}  # exceptions
OptimizerName = Literal["adamw", "muon"]
Schedule = Literal["wsd", "cosine"]
Dtype = Literal["float32", "bfloat16", "bfloat16_products"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """AdamW or Muon, with a warm-up, a constant rate and a decay to zero, or with a cosine.

    Raises: UserError for values that no run can have.
    """

    learning_rate: float  # the highest one, between warm-up and decay
    steps: int  # optimizer steps
    batch: int  # sequences per step
    context: int  # tokens per sequence
    optimizer: OptimizerName = "adamw"  # muon is for the matrices; the rest has AdamW
    schedule: Schedule = "wsd"  # warm-up, constant, linear decay to 0; or half a cosine to a tenth
    weight_decay: float = 0.1  # on matrices only
    beta1: float = 0.9  # of the moving average of gradients
    beta2: float = 0.95  # of the moving average of their squares
    epsilon: float = 1e-8  # added to the root of the squares
    warmup_share: float = 0.05  # of the steps, at the beginning
    warmup_steps: int = 0  # above 0, it replaces the share, so that runs of several lengths start alike
    decay_share: float = 0.3  # of the steps, at the end
    width_base: int = 0  # above 0: the width of the tuned learning rate; matrices' rates fall as width grows
    clip: float = 1.0  # largest norm of the gradient
    balance_rate: float = (
        1e-2  # step of the routing bias; runs of hundreds of steps need more than the 1e-3 of long ones
    )
    balance_weight: float = 1e-3  # of the sequence-wise balance loss
    z_loss_weight: float = 1e-3  # of the squared log-sum of the router's logits
    mtp_weight: float = 0.3  # of multi-token prediction, where the shape has modules for it
    mtp_late_weight: float = 0.1  # after two thirds of the run; source: DeepSeek-V3, section 4.2
    spike_sigmas: float = 0.0  # above 0: a step whose loss is this far above the last ones is undone, its batch skipped
    dtype: Dtype = "float32"  # of products and the residual stream, or of products alone; weights stay float32
    seed: int = 0  # of weights and of the order of windows

    def __post_init__(self) -> None:
        for name in ("learning_rate", "steps", "batch", "context", "clip"):
            if not getattr(self, name) > 0:
                raise UserError(f"recipe: {name}={getattr(self, name)} is not positive")
        for name, known in (("dtype", Dtype), ("optimizer", OptimizerName), ("schedule", Schedule)):
            if getattr(self, name) not in get_args(known):
                raise UserError(f"recipe: {name}={getattr(self, name)} is not one of {', '.join(get_args(known))}")
        for name, value in vars(self).items():
            if not isinstance(value, str):
                _check_size(name, value)
        for name in ("beta1", "beta2"):
            if getattr(self, name) == 1:
                raise UserError(f"recipe: {name}=1 would never change the average", hint="give a value below 1")
        if self.warmup_steps >= self.steps:
            raise UserError(f"recipe: warmup_steps={self.warmup_steps} is not below steps={self.steps}")
        if self.warmup_share + self.decay_share > 1:
            raise UserError(
                f"recipe: warmup_share={self.warmup_share}, decay_share={self.decay_share} add up to more than 1"
            )
        if self.schedule == "cosine" and self.warmup >= self.steps:
            raise UserError(
                f"recipe: warmup_share={self.warmup_share} leaves no step for the cosine",
                hint="give a share below 1, or schedule wsd",
            )

    @property
    def version(self) -> int:
        """The version of the numbers that such a recipe gives."""
        return RECIPE_VERSION if self.dtype == "float32" else HALF_VERSION

    @property
    def tokens(self) -> int:
        """Training tokens of the run."""
        return self.steps * self.batch * self.context

    @property
    def warmup(self) -> float:
        """Steps over which the learning rate rises."""
        return self.warmup_steps or self.warmup_share * self.steps

    def rate(self, step: int) -> float:
        """Learning rate of a step: a linear rise, then a constant rate and a linear fall to zero, or half a cosine.

        Source: Hu et al. 2024 (arXiv 2404.06395); its linear decay, Hägele et al. 2024 (arXiv 2405.18392); the cosine
        to a tenth, Hoffmann et al. 2022 (arXiv 2203.15556)
        """
        warmup = self.warmup
        rise = (step + 1) / warmup if warmup else 1.0
        if self.schedule == "cosine":
            done = max(0.0, step + 1 - warmup) / (self.steps - warmup)
            return self.learning_rate * min(rise, 0.55 + 0.45 * math.cos(math.pi * done))
        decay = self.decay_share * self.steps
        fall = (self.steps - step) / decay if decay else 1.0
        return self.learning_rate * min(rise, 1.0, fall)

    @property
    def trunk_steps(self) -> int:
        """Steps that runs share which differ only in length; 0 where they differ from the first step."""
        if self.schedule != "wsd" or not self.warmup_steps:
            return 0
        late = LATE_SHARE if self.mtp_weight != self.mtp_late_weight else 1.0
        return math.floor(min(1 - self.decay_share, 1 - FROZEN_SHARE, late) * self.steps)

    def prediction_weight(self, step: int) -> float:
        """Weight of multi-token prediction in a step's loss."""
        return self.mtp_weight if step < self.late_step else self.mtp_late_weight

    @property
    def late_step(self) -> int:
        """The first step at which multi-token prediction has its late weight."""
        return min(self.steps, math.ceil(LATE_SHARE * self.steps))

    @property
    def predicting_steps(self) -> int:
        """Steps that also train multi-token prediction: those where its weight is above 0."""
        late = self.late_step
        return (late if self.mtp_weight > 0 else 0) + (self.steps - late if self.mtp_late_weight > 0 else 0)

    def bias_rate(self, step: int) -> float:
        """Step size of the routing bias: constant, then 0 at the end.

        Source: DeepSeek-V3 (arXiv 2412.19437), section 4.2: 0 for the last 3 % of the tokens
        """
        return self.balance_rate if step < (1 - FROZEN_SHARE) * self.steps else 0.0


def _check_size(name: str, value: float) -> None:
    """Raises: UserError for a number below 0, a number that is too large, or NaN."""
    most = MOST.get(name, MOST_COUNT if isinstance(value, int) else MOST_SIZE)
    if not value >= 0:
        raise UserError(f"recipe: {name}={value} is not a number of at least 0")
    if value > most:
        raise UserError(f"recipe: {name}={value:.3g} is too large", hint=f"at most {most:.3g}")
