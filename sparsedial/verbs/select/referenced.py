"""The losses of a reference model that `select` trains, where a score needs them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sparsedial.showing.notes import note
from sparsedial.text.splitting import Splitting
from sparsedial.units import count_words
from sparsedial.verbs.select.settings import SelectSettings

if TYPE_CHECKING:
    from sparsedial.selection.reference import Reference


def referenced(settings: SelectSettings, splitting: Splitting, folder: Path) -> Reference | None:
    """Train the model and score all train documents; None where no side of its losses is asked for.

    What it needs on disk lies in `folder` meanwhile.

    Raises: UserError where the text is too small, and where PyTorch is missing.
    """
    if settings.chosen_side is None:
        return None
    from sparsedial.kernels.metering import meter
    from sparsedial.runs.devices import pick_device
    from sparsedial.selection.reference import reference_losses
    from sparsedial.showing.progress import Progress
    from sparsedial.verbs.listening import RunListener

    device = pick_device(settings.device)
    note(f"training a reference model to score {count_words(splitting.splits.count('train'), 'document')}")
    with tempfile.TemporaryDirectory(dir=folder) as beside, Progress() as progress:
        listener = RunListener(progress, meter(device, 1))
        return reference_losses(settings.text, splitting, Path(beside), settings.seed, device, listener)
