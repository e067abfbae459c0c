"""The parts of `prune`: the checkpoint and its texts, the choice of experts, and the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sparsedial.errors import UserError
from sparsedial.model.checkpoint import model_of
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import Transformer
from sparsedial.pruning.choice import Choice
from sparsedial.pruning.gather import gather
from sparsedial.pruning.kept import BUDGETS, keep_best, sparse_layers
from sparsedial.pruning.merging import merge_alike
from sparsedial.pruning.scores import HC_SMOE, RANDOM, SCORES, random_scores
from sparsedial.pruning.sequential import keep_in_turn
from sparsedial.pruning.windows import Windows, read_windows
from sparsedial.shape.shape import Shape
from sparsedial.showing.notes import note_skipped
from sparsedial.text.tokenizer import load_tokenizer
from sparsedial.verbs.prune_settings import PruneSettings

DRAWS = 3  # random choices that the result is compared with; a single one may be lucky
MOST_CONTEXT = 2048  # of a window, unless it is asked for


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """The original, read and checked, and the texts."""

    shape: Shape
    tensors: Sequence[NamedTensor]
    model: Transformer
    calibrating: Windows
    scored: Mapping[str, Windows]  # by text; the calibration's first
    again: bool  # whether the calibration is so short that it is scored itself
    second: Windows | None


def opened(settings: PruneSettings) -> Work:
    """Read the checkpoint and the texts; what can be refused is refused before a weight is read.

    Raises: UserError as `prune`.
    """

    checkpoint = read_checkpoint(settings.checkpoint, torch.bfloat16)
    shape = checkpoint.shape
    layers = sparse_layers(shape)
    if not layers:
        raise UserError(
            f"{settings.checkpoint} is dense: it has no experts to turn off",
            hint="give a sparse checkpoint; layers, neurons and weights cannot be turned off yet",
        )
    alike = {number: np.ones(layer.experts) for number, layer in layers.items()}
    BUDGETS[settings.budget](alike, shape, settings.share)  # refuses what no scores can help
    windows, second = _texts(settings, shape)
    calibrating, scored = windows.divided(settings.scored_tokens)
    return Work(
        shape=shape,
        tensors=checkpoint.tensors,
        model=model_of(shape, checkpoint.tensors),
        calibrating=calibrating,
        scored={text.source: text for text in (scored, *([second] if second else []))},
        again=scored is calibrating,
        second=second,
    )


def _texts(settings: PruneSettings, shape: Shape) -> tuple[Windows, Windows | None]:
    """The calibration text and the second one, as windows."""

    context = min(shape.context, MOST_CONTEXT) if settings.context is None else settings.context
    least = 1 + shape.mtp_layers
    if not least <= context <= shape.context:
        raise UserError(f"{context} lies outside {least}..{shape.context}, the context of the model", field="context")
    if settings.also == settings.calibrate:
        raise UserError("is the calibration text itself", hint="name text of another kind", field="also")
    tokenizer = load_tokenizer(settings.checkpoint)
    sizes = {"vocab_size": shape.vocab_size, "context": context}
    most = settings.calibration_tokens + settings.scored_tokens
    windows = read_windows(settings.calibrate, tokenizer, tokens=most, field="calibrate", **sizes)
    second = None
    if settings.also:
        second = read_windows(settings.also, tokenizer, tokens=settings.scored_tokens, field="also", **sizes)
    for text in (windows, *([second] if second else [])):
        note_skipped(text.skipped)
    return windows, second


def chosen(work: Work, settings: PruneSettings) -> Choice:
    """Calibrate, score every expert and choose.

    Raises: UserError for a calibration text that the model knows less of than a uniform guess does.
    """
    windows_WS1, merging = torch.from_numpy(work.calibrating.ids_WS1), settings.method == HC_SMOE
    gathered = gather(work.model, windows_WS1, outputs=merging)
    _require_known(gathered.loss, work.shape)
    experts = {layer: sizes.experts for layer, sizes in sparse_layers(work.shape).items()}
    drawn = [random_scores(experts, settings.seed + number) for number in range(DRAWS)]
    score, groups, reached = SCORES.get(settings.method), work.shape.expert_groups, gathered.reached
    scores = drawn[0] if score is None else {layer: score.of(seen) for layer, seen in reached.items()}
    counts = BUDGETS[settings.budget](scores, work.shape, settings.share)
    merged = merge_alike(reached, counts, groups) if merging else None
    kept = merged.kept if merged else keep_best(scores, counts, groups)
    if settings.sequential and score is not None:
        reached, kept = keep_in_turn(work.model, windows_WS1, score, counts)
    controls = () if settings.method == RANDOM else (keep_best(each, counts, groups) for each in drawn)
    return Choice(reached=reached, kept=kept, merged=merged, controls=tuple(controls))


def _require_known(loss: float, shape: Shape) -> None:
    guess = math.log(shape.vocab_size)
    if loss > guess:
        raise UserError(
            f"the model's loss on it is {loss:.3f} nats per token, above the {guess:.3f} of a uniform guess",
            hint="the text is foreign to this model: give text like what it was trained on",
            field="calibrate",
        )
