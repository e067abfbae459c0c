"""`prune --split-experts`: a dense checkpoint whose neurons become experts, and what each number of them costs."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from sparsedial.errors import UserError
from sparsedial.model.checkpoint import model_of
from sparsedial.model.reading import Checkpoint, read_checkpoint
from sparsedial.model.twin import QUANTISED, write_like
from sparsedial.pruning.folder import require_free
from sparsedial.pruning.joining import weights_digest
from sparsedial.pruning.split_sizes import SplitSizes, not_to_split
from sparsedial.pruning.splitting import Split, divided
from sparsedial.records.dial_file import DIAL_FILE
from sparsedial.records.prune import PRUNE_FILE, SCORES_FILE
from sparsedial.records.record import write
from sparsedial.records.split import SPLIT_FILE, SplitExperts, SplitOrigin
from sparsedial.shape.config import load_config
from sparsedial.showing.notes import note
from sparsedial.store import whole_folder
from sparsedial.units import human_count
from sparsedial.verbs.origin import require_checkpoint
from sparsedial.verbs.prune_settings import PruneSettings
from sparsedial.verbs.pruned_answer import checkpoint_name
from sparsedial.verbs.pruned_texts import texts
from sparsedial.verbs.split_answer import answered, dial_of
from sparsedial.verbs.split_costs import SplitTexts, measured
from sparsedial.verbs.unfinished import found_so_far


def split_experts(settings: PruneSettings, sizes: SplitSizes) -> SplitExperts:
    """Divide the neurons of every layer into experts and a shared part, write that, and measure it at each setting.

    Raises: UserError for a damaged checkpoint, one that has experts, numbers that do not divide its layers, a text that
    is too short, foreign or does not fit the model, or a folder that is not free.
    """
    began = time.perf_counter()
    require_checkpoint(settings.checkpoint)
    require_free(settings.out, settings.checkpoint)
    dense = _dense(settings.checkpoint, sizes)
    calibrating, scored, second, _ = texts(settings, dense.shape)
    read = SplitTexts(calibrating, scored, second)
    model = model_of(dense.shape, dense.tensors)
    note(f"calibrating on {human_count(read.calibrating.tokens)} tokens")
    out = settings.out.resolve()
    with found_so_far(settings, (calibrating, second)) as shelf, whole_folder(out) as partial:
        found = divided(model, torch.from_numpy(calibrating.ids_WS1), sizes, settings.seed, shelf)
        write(partial / SPLIT_FILE, _origin(settings.checkpoint, dense, found.split))
        write_like(partial, settings.checkpoint, found.split.shape(dense.shape), found.split.stream(dense.tensors))
        note("measuring each setting: its loss, that of a random division, and that of as many neurons removed")
        costs = measured(model, dense.tensors, found, read, settings.checkpoint, partial)
        answer = answered(settings, found.split.shape(dense.shape), read, costs, partial, began)
        found.table.write_parquet(partial / SCORES_FILE)
        write(partial / PRUNE_FILE, answer)
        write(partial / DIAL_FILE, dial_of(answer))
    return answer


def _dense(folder: Path, sizes: SplitSizes) -> Checkpoint:
    """The checkpoint, once it is known that its layers can be divided and joined again."""
    found = read_checkpoint(folder, torch.bfloat16)
    lacking = not_to_split(found.shape)
    if lacking is None and load_config(folder).get(QUANTISED) is not None:
        lacking = "has weights in 8-bit blocks, which joining could not give back"
    if lacking:
        raise UserError(f"{folder} {lacking}", field="split_experts")
    sizes.require_fits(found.shape)
    return found


def _origin(folder: Path, dense: Checkpoint, split: Split) -> SplitOrigin:
    return SplitOrigin(
        original=checkpoint_name(folder, folder),
        config=(folder / "config.json").read_text(),
        neurons=tuple(split.neurons.values()),
        weights_digest=weights_digest(dense.tensors),
    )
