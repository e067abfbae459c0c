"""The recipe of a run: everything about its training that is not its shape or its text."""

from __future__ import annotations

from dataclasses import dataclass

from sparsedial.errors import UserError

RECIPE_VERSION = 3  # rises when the same recipe would give other numbers
FROZEN_SHARE = 0.05  # of a run, at its end: the routing bias stays put


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """AdamW with warm-up, a stable stretch, and a decay to zero.

    Raises: UserError for values that no run can have.
    """

    learning_rate: float
    steps: int
    batch: int  # sequences per step
    context: int  # tokens per sequence
    weight_decay: float = 0.1  # on matrices only
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    warmup_share: float = 0.05
    decay_share: float = 0.3
    clip: float = 1.0  # largest norm of the whole gradient
    balance_rate: float = (
        1e-2  # step of the routing bias; runs of hundreds of steps need more than the 1e-3 of long ones
    )
    balance_weight: float = 1e-3
    z_loss_weight: float = 1e-3
    dtype: str = "float32"
    seed: int = 0  # of weights and of the order of windows

    def __post_init__(self) -> None:
        for name in ("learning_rate", "steps", "batch", "context", "clip"):
            if not getattr(self, name) > 0:
                raise UserError(f"recipe: {name}={getattr(self, name)} is not positive")
        if self.dtype not in ("float32", "bfloat16"):
            raise UserError(f"recipe: dtype={self.dtype} is neither float32 nor bfloat16")
        if self.warmup_share + self.decay_share > 1 or min(self.warmup_share, self.decay_share) < 0:
            raise UserError(
                f"recipe: warmup_share={self.warmup_share}, decay_share={self.decay_share} do not fit in 0..1"
            )

    @property
    def tokens(self) -> int:
        """Tokens that the run learns from."""
        return self.steps * self.batch * self.context

    def rate(self, step: int) -> float:
        """Learning rate of a step: a linear rise, a stable stretch, a linear fall to zero.

        Source: Hu et al. 2024 (arXiv 2404.06395); its linear decay, Hägele et al. 2024 (arXiv 2405.18392)
        """
        warmup, decay = self.warmup_share * self.steps, self.decay_share * self.steps
        rise = (step + 1) / warmup if warmup else 1.0
        fall = (self.steps - step) / decay if decay else 1.0
        return self.learning_rate * min(rise, 1.0, fall)

    def bias_rate(self, step: int) -> float:
        """Step of the routing bias: constant, then 0 at the end.

        Source: DeepSeek-V3 (arXiv 2412.19437), section 4.2: 0 for the last 3 % of the tokens
        """
        return self.balance_rate if step < (1 - FROZEN_SHARE) * self.steps else 0.0
