"""A run: its inputs, which name it, and what came out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sparsedial.errors import UserError
from sparsedial.shape.counts import active_parameters, sparsity_of, total_parameters, training_flops_per_token
from sparsedial.shape.shape import Shape
from sparsedial.store import digest
from sparsedial.training.recipe import RECIPE_VERSION, Recipe


@dataclass(frozen=True, kw_only=True)
class Job:
    """The inputs of a run; nothing else changes its losses.

    Raises: UserError where shape and recipe do not go together.
    """

    shape: Shape
    recipe: Recipe
    text_digest: str
    tokenizer: str  # its digest
    device: str = "cpu"  # kind of device
    threads: int = 1
    kernels: str = "torch"  # or "compiled", where they round otherwise

    def __post_init__(self) -> None:
        if self.recipe.context <= self.shape.mtp_layers:
            raise UserError(
                f"run: context={self.recipe.context} is not longer than the {self.shape.mtp_layers} multi-token"
                " predictions (mtp_layers)",
                hint=f"a context of {self.shape.mtp_layers + 1} or more, or fewer mtp_layers",
            )
        if self.recipe.context > self.shape.context:
            raise UserError(
                f"run: context={self.recipe.context} is more than the {self.shape.context} positions of the shape",
                hint="--shape.context is the most that a model is meant for",
            )

    @property
    def hash(self) -> str:
        """The run's name: equal inputs, equal name; no paths, times or hosts."""
        return digest({"recipe_version": RECIPE_VERSION, **self._inputs()})

    def _inputs(self) -> dict[str, Any]:
        return {**asdict(self), "shape": self.shape.record()}

    @property
    def trunk(self) -> str:
        """What all runs have in common that differ from this one in their length alone.

        Those with a trunk (`trunk_steps` above 0) are the same run up to the shortest one's: no interval may count
        them as independent.
        """
        values = self._inputs()
        return digest({"recipe_version": RECIPE_VERSION, **values, "recipe": {**values["recipe"], "steps": None}})

    @property
    def flops(self) -> int:
        """Training FLOPs of the whole run, multi-token prediction counted where it weighs."""
        recipe = self.recipe
        return training_flops_per_token(self.shape, recipe.context, recipe.mtp_weight > 0) * recipe.tokens


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What training and scoring gave; null with a reason where there is nothing."""

    status: str  # "finished" or "diverged"
    reason: str | None
    steps_done: int
    train_loss: float | None  # mean of the last twentieth of the steps
    validation_loss: float | None
    validation_bits_per_byte: float | None
    test_loss: float | None
    test_bits_per_byte: float | None
    seconds: float  # in training steps; scoring and saving not counted
    median_step_seconds: float
    evaluation_seconds: float
    joules: float | None
    joules_source: str
    peak_memory_bytes: int
    expert_load: dict[str, float] | None
    repeats: float  # times that the train split was gone through
    alone: bool  # whether the run had the machine to itself
    machine_busy: float | None  # share of all cores that was busy during the run, our own included
    trunk_steps_shared: int  # steps that were taken over from a shorter run of the same trunk
    events: list[dict[str, Any]]  # loss spikes, and what was done about them


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run: its job and its outcome."""

    job: Job
    outcome: Outcome

    def record(self) -> dict[str, Any]:
        """The run as `run.json` holds it."""
        shape, recipe = self.job.shape, self.job.recipe
        return {
            "hash": self.job.hash,
            "trunk": self.job.trunk if recipe.trunk_steps else None,
            "shape": shape.record(),
            "recipe": asdict(recipe),
            "recipe_version": RECIPE_VERSION,
            "text_digest": self.job.text_digest,
            "tokenizer": self.job.tokenizer,
            "device": self.job.device,
            "threads": self.job.threads,
            "kernels": self.job.kernels,
            "tokens": recipe.tokens,
            "flops": self.job.flops,
            "total_parameters": total_parameters(shape),
            "active_parameters": active_parameters(shape),
            "sparsity": sparsity_of(shape),
            **asdict(self.outcome),
        }
