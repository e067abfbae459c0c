"""A reference model reads a train text once and stores its loss of every token beside the tokens, a byte each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sparsedial.errors import UserError
from sparsedial.evaluation.loss import batches
from sparsedial.evaluation.scorer import Scorer, windows_at_once
from sparsedial.machine.timing import measure_in_turn
from sparsedial.model.checkpoint import load
from sparsedial.model.transformer import initialise
from sparsedial.records.evaluation import CheckpointName
from sparsedial.records.recipe import Recipe
from sparsedial.records.record import write
from sparsedial.records.run import Run
from sparsedial.records.token_selection import REFERENCE_FILE, ReferenceLossesFile, ReferenceModelCost
from sparsedial.runs.timed import step_by
from sparsedial.selection.reference import reference_recipe, reference_shape
from sparsedial.shape.counts import forward_flops_per_token, training_flops_per_token
from sparsedial.shape.shape import Shape
from sparsedial.text.prepare import Text
from sparsedial.text.reference_losses import STEP_NATS, write_losses
from sparsedial.text.tokenizer import Tokenizer
from sparsedial.text.windows import Windows, whole_windows

FIELD = "reference"
OTHERWISE = "a trained one with <reference>"


@dataclass(frozen=True, kw_only=True)
class ScoringModel:
    """A reference model on disk."""

    name: CheckpointName
    run: Run | None  # that made it; None where it was given


def stride_of(context: int) -> int:
    """Tokens by which the windows move: half of them stand before each token, except at the text's beginning."""
    return max(1, context // 2)


def tokens_read(text: Text, context: int) -> int:
    """Tokens that the model reads to score each train token once."""
    return sum(windows.ids.shape[0] * (windows.ids.shape[1] - 1) for windows in _windows(text, context))


def require_reference(shape: Shape, tokenizer: Tokenizer, text: Text, context: int, path: str) -> None:
    """Refuse a checkpoint that cannot score the windows of a run.

    Raises: UserError for another tokenizer, another vocabulary, or a shorter context.
    """
    if tokenizer.digest != text.tokenizer.digest:
        raise UserError(
            f"{path} has the tokenizer {tokenizer.name}, and the text {text.tokenizer.name}: its losses would be of"
            " other tokens",
            hint="give a reference model of the same <tokenizer>",
            field=FIELD,
        )
    if shape.vocab_size < text.tokenizer.vocab_size:
        raise UserError(
            f"{path} has {shape.vocab_size} tokens, fewer than the {text.tokenizer.vocab_size} of the text's tokenizer",
            hint="its config.json and its tokenizer do not belong together",
            field=FIELD,
        )
    if shape.context < context:
        raise UserError(
            f"{path} reads {shape.context} tokens at a time, fewer than the {context} of a training window",
            hint="give a reference model of a longer context, or train with a shorter one",
            field=FIELD,
        )


def score_tokens(
    text: Text,
    reference: ScoringModel,
    *,
    context: int,
    device: str,
    threads: int,
    report: Callable[[int, int], None],
) -> ReferenceLossesFile:
    """Read the train split with the model, store the loss of each token, and say what that cost.

    Windows of the context move by half of it. A pass that is stopped leaves nothing and begins anew.

    Raises: UserError where the model's loss is not a number, or the files cannot be written.
    """
    began = time.perf_counter()
    torch.set_num_threads(threads)
    model = load(Path(reference.name.path)).to(torch.device(device))
    written = write_losses(text, _losses(Scorer(model), text, context, report))
    run, read = reference.run, tokens_read(text, context)
    facts = ReferenceLossesFile(
        reference=reference.name,
        run=run and run.hash,
        text_digest=text.digest,
        context_tokens=context,
        stride_tokens=stride_of(context),
        tokens=written.tokens,
        loss=written.loss,
        step_nats=STEP_NATS,
        tokens_above=written.tokens_above,
        sha256=written.sha256,
        cost=ReferenceModelCost(
            training_flops=float(run.flops) if run else 0.0,
            scoring_flops=float(read * forward_flops_per_token(model.shape, context)),
            seconds=time.perf_counter() - began + (run.seconds if run else 0.0),
        ),
    )
    write(text.folder / REFERENCE_FILE, facts)
    return facts


def _windows(text: Text, context: int) -> list[Windows]:
    return whole_windows(text, "train", context, stride_of(context))


def _losses(scorer: Scorer, text: Text, context: int, report: Callable[[int, int], None]) -> Iterator[np.ndarray]:
    """The loss of each train token after the first, in order, some windows at a time."""
    done, of = 0, text.train_tokens - 1
    for windows in _windows(text, context):
        for ids_BS1 in batches(windows):
            nats = scorer.losses(ids_BS1, windows.last)[1].flatten().cpu().numpy()
            yield nats
            done += len(nats)
            report(done, of)


def expected_cost(
    text: Text, shape: Shape | None, *, context: int, seed: int, device: str, threads: int
) -> ReferenceModelCost:
    """What a reference model will cost: one of this shape that is given, or else one that is trained first.

    Raises: UserError where the text is too small to train one.
    """
    recipe = None if shape else reference_recipe(text, context, seed, "token_share", OTHERWISE)
    shape = shape or reference_shape(text, context)
    read = tokens_read(text, context)
    score, learn = reference_seconds(shape, recipe, context=context, device=device, threads=threads)
    return ReferenceModelCost(
        training_flops=float(training_flops_per_token(shape, context) * recipe.tokens) if recipe else 0.0,
        scoring_flops=float(read * forward_flops_per_token(shape, context)),
        seconds=score * read + (learn * recipe.steps if recipe else 0.0),
    )


def reference_seconds(
    shape: Shape, recipe: Recipe | None, *, context: int, device: str, threads: int
) -> tuple[float, float]:
    """Seconds in which a reference model reads one token on this machine, and in which it learns one step.

    Both are timed for about two seconds; the second is 0 without a recipe. Scoring has so many threads, training one.
    """
    count = windows_at_once(context + 1)
    scorer = Scorer(initialise(shape, 0).to(torch.device(device)))
    ids_WS1 = torch.zeros(count, context + 1, dtype=torch.long)

    def score() -> None:
        torch.set_num_threads(threads)
        scorer.loss(ids_WS1)

    calls: dict[str, Callable[[], None]] = {"scoring": score}
    if recipe is not None:
        step = step_by(shape, recipe, device, 1)

        def learn() -> None:
            torch.set_num_threads(1)
            step()

        calls["training"] = learn
    timed = measure_in_turn(calls, rounds=2, round_seconds=1.0)
    learning = timed["training"].mean_seconds if recipe else 0.0
    return timed["scoring"].mean_seconds / (count * context), learning
