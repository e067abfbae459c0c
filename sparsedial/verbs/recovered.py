"""The recovery of `prune`: whether it can be done, and the checkpoint that it gives."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from sparsedial.errors import UserError, about
from sparsedial.machine.energy import meter
from sparsedial.pruning.folder import write_pruned
from sparsedial.pruning.kept import Kept
from sparsedial.pruning.recovery import Recovered, Recovering, kept_beside, recover, write_recovered
from sparsedial.pruning.windows import Windows
from sparsedial.records.prune import RecoveryKind
from sparsedial.records.recipe import Recipe
from sparsedial.runs.devices import pick_device, pick_threads
from sparsedial.runs.measuring import training_dtype
from sparsedial.shape.shape import Shape
from sparsedial.showing.progress import Progress
from sparsedial.store import whole_folder
from sparsedial.text.prepare import Text
from sparsedial.text.windows import require_windows
from sparsedial.verbs.described import described, recipes
from sparsedial.verbs.listening import RunListener
from sparsedial.verbs.prune_settings import PruneSettings
from sparsedial.verbs.pruned import Work
from sparsedial.verbs.started import find_start


def home_of(settings: PruneSettings) -> contextlib.AbstractContextManager[Path | None]:
    """The folder of a recovery, as `kept_beside`; None where none is asked for.

    Raises: UserError where another process has it, or it cannot be written.
    """
    return contextlib.nullcontext() if settings.recover is None else kept_beside(settings.out.resolve())


def recovering(settings: PruneSettings, text: Text | None, home: Path, *, zeros_stay: bool) -> Recovering:
    """Check, before the calibration, that a recovery can be done. Its recipe is that of `train CHECKPOINT`.

    Raises: UserError for a number of tokens that no run can have, or a text that is too small.
    """
    device, original = pick_device("auto"), find_start(str(settings.checkpoint), settings.out)
    assert text is not None
    assert original is not None
    asked = {"dtype": training_dtype(device), **({"context": settings.context} if settings.context else {})}
    with about("recover"):
        (recipe,) = recipes(described(original, {}, asked, settings.recover)[1], ())
    try:
        require_windows(text, batch=recipe.batch, context=recipe.context)
    except UserError as error:
        raise UserError(error.problem, hint="give more text, or a smaller <context>", field="calibrate") from error
    _require_step(settings.recover or 0, recipe)
    return Recovering(
        recipe=recipe,
        kind=cast(RecoveryKind, settings.recover_by),
        text=text,
        original=original.name,
        device=device,
        threads=pick_threads(None),
        zeros_stay=zeros_stay,
        home=home,
    )


def _require_step(tokens: float, recipe: Recipe) -> None:
    """Raises: UserError for fewer tokens than one step learns."""
    each = recipe.batch * recipe.context
    if tokens < each:
        raise UserError(
            f"{tokens:,.0f} tokens are less than one step, which learns {recipe.batch} windows of {recipe.context:,}",
            hint=f"<recover> {each} is one step; <context> makes windows shorter",
            field="recover",
        )


def recovered(work: Work, kept: Kept, recovery: Recovering, folder: Path) -> Recovered:
    """Cut, train, and write what that gave into a folder.

    Raises: UserError where the run diverges, or cannot be written.
    """
    with whole_folder(recovery.cut) as partial:
        write_pruned(partial, Path(recovery.original.path), work.shape, work.tensors, kept)
    return trained_further(recovery, work.shape, work.scored, folder)


def trained_further(recovery: Recovering, original: Shape, scored: Mapping[str, Windows], folder: Path) -> Recovered:
    """Train the bare cut, which was written, and write what that gave into a folder.

    Raises: UserError where the run diverges, or cannot be written.
    """
    with Progress() as progress:
        listener = RunListener(progress, meter(recovery.device, recovery.threads))
        found = recover(recovery, original, scored, listener)
    write_recovered(folder, recovery, found.run)
    return found
