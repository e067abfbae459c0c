"""A job: the inputs of one training run; their hash is the run's name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sparsedial.errors import UserError
from sparsedial.records.evaluation import CheckpointName
from sparsedial.records.quantities import Sparsity
from sparsedial.records.recipe import Recipe
from sparsedial.records.record import plain
from sparsedial.records.run import RunInputs
from sparsedial.records.token_selection import TokenSelection
from sparsedial.records.trained_for import TrainedFor
from sparsedial.shape.counts import active_parameters, total_parameters, training_flops_per_token
from sparsedial.shape.shape import Shape
from sparsedial.store import digest
from sparsedial.training.dial import Draws, require_dial, spared_flops

CAME_LATER = ("dial", "start", "teacher", "zeros_stay", "token_selection")  # inputs that name no run which does without


@dataclass(frozen=True, kw_only=True)
class Job:
    """The inputs of a run; nothing else changes its losses.

    Raises: UserError where the shape and the recipe do not fit together.
    """

    shape: Shape
    recipe: Recipe
    text_digest: str
    tokenizer: str  # its digest
    device: str = "cpu"  # kind of device
    threads: int = 1
    kernels: str = "torch"  # or "compiled", which rounds differently
    dial: TrainedFor | None = None  # None: every step at the shape's top_k
    start: CheckpointName | None = None  # whose weights it begins with; None: random ones
    teacher: CheckpointName | None = None  # whose distribution it learns; None: the text's next tokens
    zeros_stay: bool = False  # whether weights of the layers that are zero at the start stay so
    token_selection: TokenSelection | None = None  # the positions that its loss counts; None: all

    def __post_init__(self) -> None:
        if self.recipe.context <= self.shape.mtp_layers:
            raise UserError(
                f"context={self.recipe.context} is not longer than the {self.shape.mtp_layers} multi-token"
                " predictions (mtp_layers)",
                hint=f"a context of {self.shape.mtp_layers + 1} or more, or fewer mtp_layers",
            )
        if self.recipe.context > self.shape.context:
            raise UserError(
                f"context={self.recipe.context} is more than the {self.shape.context} positions of the shape",
                hint="<shape.context> is the longest context that the model supports",
            )
        if self.dial is not None:
            require_dial(self.dial, self.shape)

    @cached_property
    def hash(self) -> str:
        """The run's name. Equal inputs give equal names; paths, times and hosts are no inputs."""
        return digest(self._named_by)

    @property
    def trunk(self) -> str:
        """A hash of all inputs but the length: runs that differ only in length share it.

        Runs with a trunk (`trunk_steps` above 0) are the same run up to the shortest one's trunk, so no interval may
        count them as independent.
        """
        inputs = self._named_by
        return digest({**inputs, "recipe": {**inputs["recipe"], "steps": None}})

    @property
    def _named_by(self) -> dict[str, Any]:
        """What names the run; a run without what came later is named as before. Of checkpoints it is the digest."""
        chosen = self.token_selection
        checkpoints = {
            "start": self.start and self.start.digest,
            "teacher": self.teacher and self.teacher.digest,
            "token_selection": chosen and {**plain(chosen), "reference": chosen.reference.digest},
        }
        inputs = {"recipe_version": self.recipe.version, **plain(self), **checkpoints}
        return {name: value for name, value in inputs.items() if value or name not in CAME_LATER}

    @property
    def draws(self) -> Draws | None:
        """The number of experts in each step; None where all have the shape's top_k."""
        return None if self.dial is None else Draws.of(self.dial, self.shape, self.recipe)

    @property
    def trunk_steps(self) -> int:
        """Steps that it shares with runs which differ only in length; those that end the dial are its own."""
        return self.recipe.trunk_steps if self.draws is None else min(self.recipe.trunk_steps, self.draws.drawn_steps)

    def share(self, ranks: int) -> Job:
        """What one of so many ranks has in its memory: all weights, and its share of the batch.

        Raises: UserError where the ranks cannot divide a batch evenly.
        """
        batch = self.recipe.batch
        if batch % ranks:
            raise UserError(
                f"a batch of {batch} sequences cannot be divided evenly among {ranks} ranks",
                hint="make <recipe.batch> a multiple of the number of ranks",
            )
        return replace(self, recipe=replace(self.recipe, batch=batch // ranks))

    @property
    def flops(self) -> int:
        """Training FLOPs of the whole run, multi-token prediction included in the steps where its weight is above 0.

        With a dial each step counts the experts that its tokens visit.
        """
        recipe = self.recipe
        without, whole = (training_flops_per_token(self.shape, recipe.context, with_mtp) for with_mtp in (False, True))
        per_token = without * recipe.steps + (whole - without) * recipe.predicting_steps  # of each step, all added up
        full = per_token * recipe.batch * recipe.context
        return full if self.dial is None else full - spared_flops(self.dial, self.shape, recipe)

    def inputs(self) -> RunInputs:
        """The fields of a Run that come from its job."""
        return RunInputs(
            hash=self.hash,
            trunk=self.trunk if self.trunk_steps else None,
            shape=self.shape,
            recipe=self.recipe,
            dial=self.dial,
            start=self.start,
            token_selection=self.token_selection,
            recipe_version=self.recipe.version,
            text_digest=self.text_digest,
            tokenizer=self.tokenizer,
            device=self.device,
            threads=self.threads,
            kernels=self.kernels,
            tokens=self.recipe.tokens,
            flops=self.flops,
            total_parameters=total_parameters(self.shape),
            active_parameters=active_parameters(self.shape),
            sparsity=Sparsity.of(self.shape),
        )
