"""What a plan may spend and must respect."""

from __future__ import annotations

from dataclasses import dataclass

from sparsedial.errors import UserError
from sparsedial.records.plan import PlanBudget
from sparsedial.records.quantities import Currency


@dataclass(frozen=True, kw_only=True)
class Budget:
    """An amount of a currency, or a loss to reach as cheaply as possible."""

    currency: Currency
    value: float | None  # None with a target loss
    target_loss: float | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.target_loss is None):
            raise UserError("give a budget or a target_loss, not both", hint="for example 1e21 FLOPs")

    def record(self) -> PlanBudget:
        """The budget as `plan.json` holds it."""
        return PlanBudget(currency=self.currency, value=self.value, target_loss=self.target_loss)


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Bounds on a model other than its cost; None is no bound."""

    max_total_parameters: float | None = None
    max_active_parameters: float | None = None
    max_experts: int | None = None
    top_k: int | None = None
    sparsity: float | None = None  # one position of the dial; 0 is dense
    training_memory_bytes: float | None = None  # of all devices together
    serving_memory_bytes: float | None = None
    serving_positions: int = 8192
    serving_sequences: int = 1
    min_decode_tokens_per_second: float | None = None  # of one sequence, as memory traffic allows
    data_tokens: float | None = None  # unique ones
    max_repeats: float = 4.0  # how often the data may be read; source: Muennighoff 2023, up to 4 cost next to nothing
    least_tokens: float = 1e6  # the shortest training that is considered
    inference_tokens: float = 0.0  # over the model's life, paid from the same budget

    @property
    def only_sparsity(self) -> str | None:
        """Why no sparsity is chosen, where one alone is allowed."""
        return None if self.sparsity is None else f"only sparsity {self.sparsity:g} was allowed"

    def __post_init__(self) -> None:
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            raise UserError(
                f"{self.sparsity:g} is not at least 0 and below 1",
                hint="0 is dense, 0.75 is one expert in four",
                field="sparsity",
            )
        if self.data_tokens is not None and self.data_tokens * self.max_repeats < self.least_tokens:
            raise UserError(
                f"{self.data_tokens:g} tokens read {self.max_repeats:g} times (<max_repeats>) are fewer than the"
                f" {self.least_tokens:g} of the shortest training",
                hint="give more tokens or repeats",
                field="data_tokens",
            )
        if self.max_experts is not None and self.top_k is not None and self.top_k > self.max_experts:
            raise UserError(
                f"{self.top_k} and max_experts={self.max_experts} contradict each other",
                hint="a token cannot visit more experts than there are",
                field="top_k",
            )
        if (
            self.max_active_parameters is not None
            and self.max_total_parameters is not None
            and self.max_active_parameters > self.max_total_parameters
        ):
            raise UserError(
                f"{self.max_active_parameters:g} and max_total_parameters={self.max_total_parameters:g} contradict each"
                " other",
                hint="a token cannot use more parameters than there are",
                field="max_active_parameters",
            )
