"""The recovery of `prune`: whether it can be done, and the checkpoint that it gives."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from sparsedial.errors import UserError
from sparsedial.machine.energy import meter
from sparsedial.pruning.folder import write_pruned
from sparsedial.pruning.kept import Kept
from sparsedial.pruning.recovery import Recovered, Recovering, recover, write_recovered
from sparsedial.records.prune import RecoveryKind
from sparsedial.runs.devices import pick_device, pick_threads
from sparsedial.runs.measuring import training_dtype
from sparsedial.showing.progress import Progress
from sparsedial.store import whole_folder
from sparsedial.text.windows import require_windows
from sparsedial.verbs.described import described, recipes
from sparsedial.verbs.listening import RunListener
from sparsedial.verbs.prune_settings import PruneSettings
from sparsedial.verbs.pruned import Work
from sparsedial.verbs.started import find_start


def recovering(work: Work, settings: PruneSettings, home: Path) -> Recovering:
    """Check, before the calibration, that a recovery can be done. Its recipe is that of `train CHECKPOINT`.

    Raises: UserError for a text that is too small.
    """
    device, original = pick_device("auto"), find_start(str(settings.checkpoint), settings.out)
    assert work.text is not None
    assert original is not None
    asked = {"dtype": training_dtype(device), **({"context": settings.context} if settings.context else {})}
    (recipe,) = recipes(described(original, {}, asked, settings.recover)[1], ())
    try:
        require_windows(work.text, batch=recipe.batch, context=recipe.context)
    except UserError as error:
        raise UserError(error.problem, hint="give more text, or a smaller <context>", field="calibrate") from error
    return Recovering(
        recipe=recipe,
        kind=cast(RecoveryKind, settings.recover_by),
        text=work.text,
        original=original.name,
        device=device,
        threads=pick_threads(None),
        zeros_stay=not work.part.shrinks,
        home=home,
    )


def recovered(work: Work, kept: Kept, recovery: Recovering, folder: Path) -> Recovered:
    """Cut, train, and write what that gave into a folder.

    Raises: UserError where the run diverges, or cannot be written.
    """
    with whole_folder(recovery.cut) as partial:
        write_pruned(partial, Path(recovery.original.path), work.shape, work.tensors, kept)
    with Progress() as progress:
        listener = RunListener(progress, meter(recovery.device, recovery.threads))
        found = recover(recovery, work.shape, work.scored, listener)
    write_recovered(folder, recovery, found.run)
    return found
