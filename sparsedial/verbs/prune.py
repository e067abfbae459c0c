"""`prune`: turn parts of a checkpoint off, and measure what that costs and saves."""

from __future__ import annotations

import sys
import time

from sparsedial.records.prune import PRUNE_FILE, SCORES_FILE, FixedSetting, Pruned
from sparsedial.records.record import write
from sparsedial.units import human_count
from sparsedial.verbs.origin import require_checkpoint
from sparsedial.verbs.prune_settings import PruneSettings


def prune(settings: PruneSettings) -> Pruned | FixedSetting:
    """Write a checkpoint without the experts that matter least, and measure it beside the original.

    With `fix_setting` it is the checkpoint at a setting of its dial that is written, and nothing is measured.

    The text decides what matters. Loss is measured on windows that take no part in that, and on a second text; it is
    measured for a random choice of as many experts too. The folder appears when it is whole; the original is only read.

    Raises: UserError for a damaged or dense checkpoint, a share that its router does not allow, a text that is too
    short, foreign or does not fit the model, or a folder that is not free.
    """
    from sparsedial.model.checkpoint import load
    from sparsedial.model.writing import whole_folder
    from sparsedial.pruning.folder import require_free, write_pruned
    from sparsedial.pruning.table import write_scores
    from sparsedial.verbs.pruned import chosen, opened
    from sparsedial.verbs.pruned_answer import answered

    if settings.fix_setting is not None:
        from sparsedial.verbs.fixed_setting import fixed_setting

        return fixed_setting(settings.checkpoint, settings.fix_setting, settings.out)
    began = time.perf_counter()
    require_checkpoint(settings.checkpoint)
    require_free(settings.out, settings.checkpoint)
    work = opened(settings)
    _say(f"calibrating on {human_count(work.calibrating.tokens)} tokens")
    choice = chosen(work, settings)
    smaller = choice.kept.shape(work.shape)
    with whole_folder(settings.out.resolve()) as partial:
        write_pruned(partial, settings.checkpoint, smaller, choice.stream(work.tensors))
        _say("measuring the loss, speed and memory of the original and of the smaller checkpoint")
        answer = answered(work, choice, load(partial), partial, settings, began)
        write_scores(partial / SCORES_FILE, choice.reached, choice.into, work.shape.expert_groups)
        write(partial / PRUNE_FILE, answer)
    return answer


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
