"""`train` on many processes: found where torchrun or Slurm started them, or started here."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from sparsedial.errors import UserError
from sparsedial.runs.ranks.place import Place, find_place
from sparsedial.verbs.train.settings import TrainSettings

if TYPE_CHECKING:
    from sparsedial.runs.ranks.joined import Joined

T = TypeVar("T")


def on_all_ranks(settings: TrainSettings, work: Callable[[Joined | None], T]) -> T:
    """What `work` returns, which is done in this process alone, or as rank 0; other ranks follow, and return the same.

    Raises: UserError where the settings contradict the way of starting.
    """
    place = find_place(os.environ)
    _require_consistent(settings, place)
    if place is None and (settings.ranks in (None, 1) or settings.dry_run):
        return work(None)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # before PyTorch is imported: it warns of what is no fault
    from sparsedial.runs.ranks.gathering import on_new_ranks, on_ranks

    if place is None:
        return on_new_ranks(settings.ranks or 1, settings.device, work)
    return on_ranks(place, settings.device, work)


def _require_consistent(settings: TrainSettings, place: Place | None) -> None:
    """Raises: UserError where the settings contradict the way of starting, or make another run of the same name."""
    count = place.count if place else settings.ranks or 1
    if settings.ranks not in (None, count):
        raise UserError(
            f"{settings.ranks} contradicts the {count} processes that were started together",
            hint="leave it out under torchrun and srun",
            field="ranks",
        )
    if count > 1 and settings.token_share is not None:
        raise UserError(
            f"each of {count} ranks would choose among its own tokens, which is another run than that of one process",
            hint="leave it out, or train with one rank",
            field="token_share",
        )
