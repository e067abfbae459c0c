"""`prune`: turn parts of a checkpoint off, and measure what that costs and saves."""

from __future__ import annotations

import time

from sparsedial.records.compare import Compared
from sparsedial.records.dry_run import PruneDryRun
from sparsedial.records.prune import FixedSetting, Pruned
from sparsedial.records.split import JoinedExperts, SplitExperts
from sparsedial.showing.notes import note
from sparsedial.store import whole_folder
from sparsedial.units import human_count
from sparsedial.verbs.origin import require_checkpoint
from sparsedial.verbs.prune.settings import PruneSettings


def prune(settings: PruneSettings) -> Pruned | FixedSetting | Compared | SplitExperts | JoinedExperts | PruneDryRun:
    """Write a checkpoint without the experts, layers, neurons or weights that matter least, and measure it beside it.

    The method says what goes, and the text what of it matters. How much goes is a share, or as little as keeps a size
    or a speed, or as much as keeps a loss; for the last two, shares are tried. Loss is measured on windows that take no
    part in the scores, on a second text, and for a random choice of as much too. The folder appears when it is whole;
    the original is only read.

    With `recover` what stays is then trained on the calibration text. With `against` the answer also says what a lower
    k or a trained sparser model gives at as many active parameters. Stopped, the same command goes on: from the last
    layer that was done, the last share that was tried, the last point of a comparison, or the last saved step.

    Other jobs: with `compare` several methods are tried at several shares, and what is written is a comparison. With
    `split_experts` a dense checkpoint gets experts, of which all together are the dense one, and some numbers of them
    are measured; `recover` then trains it at `top_k` of them. `join_experts` gives the dense one back. With
    `fix_setting` it is the checkpoint at a setting of its dial that is written, and nothing is measured.

    With `dry_run` the answer says what a choice, a comparison or a division would cost, and nothing is written.

    Raises: UserError for a damaged checkpoint, one that has no such part, a share that it does not allow, a target
    that nothing keeps, a text that is too short, foreign or does not fit the model, a task that is unknown or does not
    fit it, a recovery that diverges, or a folder that is not free.
    """
    began = time.perf_counter()
    require_checkpoint(settings.checkpoint)
    from sparsedial.pruning.folder import require_free
    from sparsedial.verbs.prune.against import opened_study
    from sparsedial.verbs.prune.choice import opened
    from sparsedial.verbs.prune.folder import pruned_folder
    from sparsedial.verbs.prune.recovered import home_of, recovering
    from sparsedial.verbs.prune.unfinished import found_so_far

    if settings.fix_setting is not None:
        from sparsedial.verbs.prune.fixed_setting import fixed_setting

        return fixed_setting(settings.checkpoint, settings.fix_setting, settings.out)
    if settings.join_experts:
        from sparsedial.verbs.prune.join_experts import join_experts

        return join_experts(settings.checkpoint, settings.out)
    require_free(settings.out, settings.checkpoint)
    if settings.split is not None:
        from sparsedial.verbs.prune.split_cost import split_dry_run
        from sparsedial.verbs.prune.split_experts import split_experts

        return (split_dry_run if settings.dry_run else split_experts)(settings, settings.split)
    if settings.dry_run:
        from sparsedial.verbs.prune.cost import dry_run

        return dry_run(settings)
    if settings.compare:
        from sparsedial.verbs.prune.compared import compared

        return compared(settings, began)
    with home_of(settings) as home:
        work = opened(settings, (settings.ask,), home)
        recovery = home and recovering(settings, work.text, home, zeros_stay=not work.part.shrinks)
        study = settings.against and opened_study(settings.against, settings.checkpoint, work)
        note(f"calibrating on {human_count(work.calibrating.tokens)} tokens")
        with found_so_far(settings, work.texts) as shelf, whole_folder(settings.out.resolve()) as partial:
            return pruned_folder(partial, work, shelf, settings, began, recovery, study)
