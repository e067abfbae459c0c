"""The last phase of `prune`: what stays is chosen, written, trained where that is asked for, and measured."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from sparsedial.pruning.folder import write_pruned
from sparsedial.pruning.recovery import Recovering
from sparsedial.pruning.shelf import Shelf
from sparsedial.records.prune import PRUNE_FILE, SCORES_FILE, Pruned
from sparsedial.records.record import write
from sparsedial.verbs.prune.against import Against, equal_cost
from sparsedial.verbs.prune.answer import answered
from sparsedial.verbs.prune.choice import Work, chosen
from sparsedial.verbs.prune.costs import measured
from sparsedial.verbs.prune.recovered import recovered
from sparsedial.verbs.prune.settings import PruneSettings


def pruned_folder(
    folder: Path,
    work: Work,
    shelf: Shelf,
    settings: PruneSettings,
    began: float,
    recovery: Recovering | None,
    study: Against | None,
) -> Pruned:
    """Fill a folder with the smaller checkpoint, the scores behind it and the answer, which is returned.

    Raises: UserError for a target that nothing keeps, a run that diverges, or what cannot be written.
    """
    choice = chosen(work, shelf)
    if recovery is None:
        write_pruned(folder, settings.checkpoint, work.shape, work.tensors, choice.kept)
    trained = recovery and recovered(work, choice.kept, recovery, folder)
    costs = measured(work, choice, settings.checkpoint, folder, shelf.under("measured"), trained and trained.cut)
    answer = answered(work, choice, costs, folder, settings, began, trained)
    if study:
        answer = replace(answer, equal_cost=equal_cost(study, work, costs.model))
    choice.scores.write_parquet(folder / SCORES_FILE)
    write(folder / PRUNE_FILE, answer)
    return answer
