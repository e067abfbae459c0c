"""The recovery of `prune`: whether it can be done, and the checkpoint that it gives."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from sparsedial.errors import UserError, about
from sparsedial.kernels.metering import meter
from sparsedial.pruning.folder import write_pruned
from sparsedial.pruning.kept import Kept
from sparsedial.pruning.recovery import Recovered, Recovering, kept_beside, recover, write_recovered
from sparsedial.pruning.windows import Windows
from sparsedial.records.prune import RecoveryKind
from sparsedial.runs.devices import pick_device, pick_threads, training_dtype
from sparsedial.shape.shape import Shape
from sparsedial.showing.progress import Progress
from sparsedial.store import whole_folder
from sparsedial.text.prepare import Text
from sparsedial.text.windows import require_windows
from sparsedial.verbs.listening import RunListener
from sparsedial.verbs.prune.choice import Work
from sparsedial.verbs.prune.settings import PruneSettings
from sparsedial.verbs.train.described import RUN_DEFAULTS, described, recipes
from sparsedial.verbs.train.started import find_start

LEAST_STEPS = 128  # short recoveries won more back by many small steps than by few large ones; LOG.md


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
    context = settings.context or original.recipe["context"]
    asked = {"dtype": training_dtype(device), "context": context, "batch": batch_of(settings.recover or 0, context)}
    with about("recover"):
        (recipe,) = recipes(described(original, {}, asked, settings.recover)[1], ())
    try:
        require_windows(text, batch=recipe.batch, context=recipe.context)
    except UserError as error:
        raise UserError(error.problem, hint="give more text, or a smaller <context>", field="calibrate") from error
    _require_window(settings.recover or 0, recipe.context)
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


def batch_of(tokens: float, context: int) -> int:
    """Windows of a step: as many as `train` has, or a half, a quarter … of them where few steps would be left."""
    batch = int(RUN_DEFAULTS["batch"])
    while batch > 1 and tokens < LEAST_STEPS * batch * context:
        batch //= 2
    return batch


def _require_window(tokens: float, context: int) -> None:
    """Raises: UserError for fewer tokens than the smallest step learns."""
    if tokens < context:
        raise UserError(
            f"{tokens:,.0f} tokens are less than one window of {context:,}",
            hint="learn more, or make windows shorter with <context>",
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
