"""What a plan may spend and must respect."""

from __future__ import annotations

from dataclasses import dataclass

from sparsedial.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much of which currency; or a loss to reach as cheaply as can be."""

    currency: str  # flops, seconds, joules or dollars
    value: float | None  # None with a target loss
    target_loss: float | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.target_loss is None):
            raise UserError("plan: give a budget or --target-loss, not both", hint="like --flops 1e21")


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Bounds on a model beside its cost; None leaves one out."""

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
    least_tokens: float = 1e6  # fewer are no training
    inference_tokens: float = 0.0  # over the model's life, paid from the same budget

    def __post_init__(self) -> None:
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            raise UserError(
                f"plan: --sparsity {self.sparsity:g} is not from 0 up to below 1",
                hint="0 is dense, 0.75 one expert in four",
            )
        if self.data_tokens is not None and self.data_tokens * self.max_repeats < self.least_tokens:
            raise UserError(
                f"plan: --data-tokens {self.data_tokens:g} read --max-repeats {self.max_repeats:g} times are fewer than"
                f" the {self.least_tokens:g} tokens that any training takes",
                hint="give more tokens or repeats",
            )
        if self.max_experts is not None and self.top_k is not None and self.top_k > self.max_experts:
            raise UserError(
                f"plan: --top-k {self.top_k} and --max-experts {self.max_experts} contradict each other",
                hint="a token cannot visit more experts than there are",
            )
        if (
            self.max_active_parameters is not None
            and self.max_total_parameters is not None
            and self.max_active_parameters > self.max_total_parameters
        ):
            raise UserError(
                f"plan: --max-active-parameters {self.max_active_parameters:g} and --max-total-parameters"
                f" {self.max_total_parameters:g} contradict each other",
                hint="a token cannot use more parameters than there are",
            )
