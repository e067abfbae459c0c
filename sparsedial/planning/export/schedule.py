"""A recipe in whole steps, with a batch that the devices of other trainers can divide."""

from __future__ import annotations

from dataclasses import dataclass

from sparsedial.records.recipe import Recipe

MOST_DEVICES = 8  # of one machine, which a launch line starts
BALANCE_RATE = 0.001  # of a routing bias that moves by its load's sign; source: DeepSeek-V3 (arXiv 2412.19437)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a run is, and how its learning rate rises and falls."""

    batch: int  # sequences per step
    steps: int
    warmup_steps: int
    decay_steps: int  # at the end
    final_rate: float  # where the learning rate ends
    devices_asked: int
    batch_note: str | None  # how the batch differs from the recipe's

    @property
    def devices(self) -> int:
        """The devices to start on one machine: of those that were asked for, the most that divide the batch."""
        most = min(self.devices_asked, MOST_DEVICES)
        return max(count for count in range(1, most + 1) if self.batch % count == 0)

    @property
    def notes(self) -> tuple[str, ...]:
        """How the batch differs from the recipe's, and the devices from those that were asked for."""
        notes = [self.batch_note] if self.batch_note else []
        if self.devices < self.devices_asked:
            why = (
                f"it is for one machine of {MOST_DEVICES}"
                if self.devices == MOST_DEVICES
                else f"no more divide the batch of {self.batch} on one machine"
            )
            notes.append(f"the command starts {self.devices} of the {self.devices_asked:,} devices: {why}")
        return tuple(notes)


def schedule(recipe: Recipe, devices: int) -> Schedule:
    """The recipe in whole steps, with a batch that many devices divide: both trainers refuse other batches.

    The batch is rounded to a multiple of the largest power of two that is at most a quarter of it, so it changes by at
    most an eighth. The number of steps then keeps the tokens.
    """
    batch, unit = recipe.batch, 1 << max(0, (recipe.batch // 4).bit_length() - 1)
    even = unit * round(batch / unit)
    steps = max(1, round(recipe.steps * batch / even))
    warmup = recipe.warmup_steps or round(recipe.warmup_share * steps)
    cosine = recipe.schedule == "cosine"
    return Schedule(
        batch=even,
        steps=steps,
        warmup_steps=warmup,
        decay_steps=steps - warmup if cosine else round(recipe.decay_share * steps),
        final_rate=0.1 * recipe.learning_rate if cosine else 0.0,
        devices_asked=devices,
        batch_note=None
        if even == batch
        else f"the batch of {batch} becomes {even}, which up to {unit} devices divide; {steps:,} steps keep the tokens",
    )
