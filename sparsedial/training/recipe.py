"""The recipe of a run: everything about its training that is not its shape or its text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from sparsedial.errors import UserError

RECIPE_VERSION = 5  # rises when the same recipe would give other numbers
FROZEN_SHARE = 0.05  # of a run, at its end: the routing bias stays put
LATE_SHARE = 0.67  # of a run, after which multi-token prediction weighs less: 10 of DeepSeek-V3's 14.8 T tokens
MOST = 2**31  # steps, sequences or positions
OptimizerName = Literal["adamw", "muon"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """AdamW or Muon with warm-up, a stable stretch and a decay to zero, or a cosine.

    Raises: UserError for values that no run can have.
    """

    learning_rate: float
    steps: int
    batch: int  # sequences per step
    context: int  # tokens per sequence
    optimizer: OptimizerName = "adamw"
    schedule: Literal["wsd", "cosine"] = "wsd"
    weight_decay: float = 0.1  # on matrices only
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    warmup_share: float = 0.05
    warmup_steps: int = 0  # above 0 instead of the share: runs of several lengths then begin alike
    decay_share: float = 0.3
    width_base: int = 0  # above 0: the width that the learning rate was tuned at; matrices' rates fall as width grows
    clip: float = 1.0  # largest norm of the whole gradient
    balance_rate: float = (
        1e-2  # step of the routing bias; runs of hundreds of steps need more than the 1e-3 of long ones
    )
    balance_weight: float = 1e-3
    z_loss_weight: float = 1e-3
    mtp_weight: float = 0.3  # of multi-token prediction, where the shape has modules for it
    mtp_late_weight: float = 0.1  # and after two thirds of the run; source: DeepSeek-V3, section 4.2
    spike_sigmas: float = 0.0  # above 0: a loss so far above the last ones is undone and its batch skipped
    dtype: str = "float32"
    seed: int = 0  # of weights and of the order of windows

    def __post_init__(self) -> None:
        for name in ("learning_rate", "steps", "batch", "context", "clip"):
            if not getattr(self, name) > 0:
                raise UserError(f"recipe: {name}={getattr(self, name)} is not positive")
        for name in ("steps", "batch", "context", "learning_rate"):
            if getattr(self, name) > MOST:
                raise UserError(f"recipe: {name}={getattr(self, name):.3g} is more than any run has")
        if self.seed >= 2**62:
            raise UserError(f"recipe: seed={self.seed} is above {2**62 - 1}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"recipe: {name}={getattr(self, name)} lies outside 0..1")
        for name in (
            "width_base", "warmup_steps", "spike_sigmas", "mtp_weight", "mtp_late_weight", "seed", "weight_decay",
            "epsilon",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise UserError(f"recipe: {name}={getattr(self, name)} is below 0")
        for name, known in (
            ("dtype", ("float32", "bfloat16")),
            ("optimizer", ("adamw", "muon")),
            ("schedule", ("wsd", "cosine")),
        ):
            if getattr(self, name) not in known:
                raise UserError(f"recipe: {name}={getattr(self, name)} is neither {known[0]} nor {known[1]}")
        if self.warmup_steps >= self.steps:
            raise UserError(f"recipe: warmup_steps={self.warmup_steps} are not below steps={self.steps}")
        if self.warmup_share + self.decay_share > 1 or min(self.warmup_share, self.decay_share) < 0:
            raise UserError(
                f"recipe: warmup_share={self.warmup_share}, decay_share={self.decay_share} do not fit in 0..1"
            )

    @property
    def tokens(self) -> int:
        """Tokens that the run learns from."""
        return self.steps * self.batch * self.context

    def rate(self, step: int) -> float:
        """Learning rate of a step: a linear rise, then a stable stretch and a linear fall to zero, or half a cosine.

        Source: Hu et al. 2024 (arXiv 2404.06395); its linear decay, Hägele et al. 2024 (arXiv 2405.18392); the cosine
        to a tenth, Hoffmann et al. 2022 (arXiv 2203.15556)
        """
        warmup = self.warmup_steps or self.warmup_share * self.steps
        rise = (step + 1) / warmup if warmup else 1.0
        if self.schedule == "cosine":
            done = max(0.0, step + 1 - warmup) / (self.steps - warmup)
            return self.learning_rate * min(rise, 0.55 + 0.45 * math.cos(math.pi * done))
        decay = self.decay_share * self.steps
        fall = (self.steps - step) / decay if decay else 1.0
        return self.learning_rate * min(rise, 1.0, fall)

    @property
    def trunk_steps(self) -> int:
        """Steps after which a run of another length, alike in all else, goes its own way; 0 where it does at once."""
        if self.schedule != "wsd" or not self.warmup_steps:
            return 0
        late = LATE_SHARE if self.mtp_weight != self.mtp_late_weight else 1.0
        return math.floor(min(1 - self.decay_share, 1 - FROZEN_SHARE, late) * self.steps)

    def prediction_weight(self, step: int) -> float:
        """Weight of multi-token prediction in a step's loss."""
        return self.mtp_weight if step < LATE_SHARE * self.steps else self.mtp_late_weight

    def bias_rate(self, step: int) -> float:
        """Step of the routing bias: constant, then 0 at the end.

        Source: DeepSeek-V3 (arXiv 2412.19437), section 4.2: 0 for the last 3 % of the tokens
        """
        return self.balance_rate if step < (1 - FROZEN_SHARE) * self.steps else 0.0
