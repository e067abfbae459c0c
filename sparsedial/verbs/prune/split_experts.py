"""`prune --split-experts`: a dense checkpoint whose neurons become experts, and what each number of them costs."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from sparsedial.errors import UserError
from sparsedial.model.checkpoint import model_of
from sparsedial.model.reading import Checkpoint, read_checkpoint
from sparsedial.model.twin import QUANTISED, write_like
from sparsedial.pruning.joining import weights_digest
from sparsedial.pruning.recovery import Recovered, Recovering
from sparsedial.pruning.split_sizes import SplitSizes, not_to_split
from sparsedial.pruning.splitting import Split, divided
from sparsedial.records.dial_file import DIAL_FILE
from sparsedial.records.evaluation import CheckpointName
from sparsedial.records.prune import PRUNE_FILE, SCORES_FILE
from sparsedial.records.record import write
from sparsedial.records.split import SPLIT_FILE, SplitExperts, SplitOrigin
from sparsedial.shape.config import load_config
from sparsedial.showing.notes import note
from sparsedial.store import whole_folder
from sparsedial.units import human_count
from sparsedial.verbs.checkpoint_names import name_of
from sparsedial.verbs.prune.prunable import require_memory_to_split
from sparsedial.verbs.prune.recovered import home_of, recovering, trained_further
from sparsedial.verbs.prune.settings import PruneSettings
from sparsedial.verbs.prune.split_answer import answered, dial_of
from sparsedial.verbs.prune.split_costs import measured
from sparsedial.verbs.prune.texts import PruneTexts, texts
from sparsedial.verbs.prune.unfinished import found_so_far


def split_experts(settings: PruneSettings, sizes: SplitSizes) -> SplitExperts:
    """Divide the neurons of every layer into experts and a shared part, write that, and measure it at some settings.

    With `recover` it is trained at `top_k` experts before it is measured.

    Raises: UserError for a damaged checkpoint, one that has experts or is too large for the memory, numbers that do not
    divide its layers, a text that is too short, foreign or does not fit the model, or a recovery that diverges.
    """
    began = time.perf_counter()
    with home_of(settings) as home:
        dense = dense_of(settings.checkpoint, sizes)
        read = texts(settings, dense.shape, home)
        recovery = home and recovering(settings, read.text, home, zeros_stay=False)
        name, model = name_of(settings.checkpoint), model_of(dense.shape, dense.tensors)
        note(f"calibrating on {human_count(read.calibrating.tokens)} tokens")
        out = settings.out.resolve()
        with found_so_far(settings, (read.calibrating, read.second.windows)) as shelf, whole_folder(out) as partial:
            found = divided(model, torch.from_numpy(read.calibrating.ids_WS1), sizes, settings.seed, shelf)
            trained = _written(partial, name, dense, found.split, read, recovery)
            costs = measured(model, dense.tensors, found, read, settings.checkpoint, partial)
            answer = answered(settings, name, found.split.shape(dense.shape), read, costs, partial, began, trained)
            found.table.write_parquet(partial / SCORES_FILE)
            write(partial / PRUNE_FILE, answer)
            write(partial / DIAL_FILE, dial_of(answer, costs))
    return answer


def _written(
    folder: Path,
    original: CheckpointName,
    dense: Checkpoint,
    split: Split,
    read: PruneTexts,
    recovery: Recovering | None,
) -> Recovered | None:
    """Write the split checkpoint into a folder, trained where a recovery is asked for.

    Raises: UserError where the run diverges, or what cannot be written.
    """
    if recovery is None:
        _write(folder, original, dense, split)
        return None
    with whole_folder(recovery.cut) as partial:
        _write(partial, original, dense, split)
    return trained_further(recovery, dense.shape, read.scored, folder)


def _write(folder: Path, original: CheckpointName, dense: Checkpoint, split: Split) -> None:
    write(folder / SPLIT_FILE, _origin(original, dense, split))
    write_like(folder, Path(original.path), split.shape(dense.shape), split.stream(dense.tensors))


def dense_of(folder: Path, sizes: SplitSizes) -> Checkpoint:
    """The checkpoint, once it is known that its layers can be divided and joined again, and that memory suffices.

    Raises: UserError where that is not so.
    """
    found = read_checkpoint(folder, torch.bfloat16)
    lacking = not_to_split(found.shape)
    if lacking is None and load_config(folder).get(QUANTISED) is not None:
        lacking = "has weights in 8-bit blocks, which joining could not give back"
    if lacking:
        raise UserError(f"{folder} {lacking}", field="split_experts")
    sizes.require_fits(found.shape)
    require_memory_to_split(found.shape)
    return found


def _origin(original: CheckpointName, dense: Checkpoint, split: Split) -> SplitOrigin:
    return SplitOrigin(
        original=original,
        config=(Path(original.path) / "config.json").read_text(),
        neurons=tuple(split.neurons.values()),
        weights_digest=weights_digest(dense.tensors),
    )
