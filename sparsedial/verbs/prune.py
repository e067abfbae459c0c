"""`prune`: turn parts of a checkpoint off, and measure what that costs and saves."""

from __future__ import annotations

import time

from sparsedial.records.prune import PRUNE_FILE, SCORES_FILE, FixedSetting, Pruned
from sparsedial.records.record import write
from sparsedial.showing.notes import note
from sparsedial.store import whole_folder
from sparsedial.units import human_count
from sparsedial.verbs.origin import require_checkpoint
from sparsedial.verbs.prune_settings import PruneSettings


def prune(settings: PruneSettings) -> Pruned | FixedSetting:
    """Write a checkpoint without the experts, layers, neurons or weights that matter least, and measure it beside it.

    The method says what goes, and the text what of it matters. Loss is measured on windows that take no part in that,
    on a second text, and for a random choice of as much too. The folder appears when it is whole; the original is only
    read.

    With `fix_setting` it is the checkpoint at a setting of its dial that is written, and nothing is measured.

    Raises: UserError for a damaged checkpoint, one that has no such part, a share that it does not allow, a text that
    is too short, foreign or does not fit the model, or a folder that is not free.
    """
    from sparsedial.pruning.folder import require_free, write_pruned
    from sparsedial.verbs.pruned import chosen, opened
    from sparsedial.verbs.pruned_answer import answered

    if settings.fix_setting is not None:
        from sparsedial.verbs.fixed_setting import fixed_setting

        return fixed_setting(settings.checkpoint, settings.fix_setting, settings.out)
    began = time.perf_counter()
    require_checkpoint(settings.checkpoint)
    require_free(settings.out, settings.checkpoint)
    work = opened(settings)
    note(f"calibrating on {human_count(work.calibrating.tokens)} tokens")
    choice = chosen(work)
    with whole_folder(settings.out.resolve()) as partial:
        write_pruned(partial, settings.checkpoint, work.shape, work.tensors, choice.kept)
        note("measuring the loss, speed and memory of the original and of the smaller checkpoint")
        answer = answered(work, choice, partial, settings, began)
        choice.scores.write_parquet(partial / SCORES_FILE)
        write(partial / PRUNE_FILE, answer)
    return answer
