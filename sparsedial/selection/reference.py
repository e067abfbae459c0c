"""A small reference model, trained on a sample of the train text, and its loss on each train document.

W windows, S positions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sparsedial.errors import UserError
from sparsedial.evaluation.scorer import Scorer, windows_at_once
from sparsedial.kernels import native
from sparsedial.model.checkpoint import load
from sparsedial.records.recipe import Recipe
from sparsedial.records.run import Run
from sparsedial.records.selection import ReferenceModel
from sparsedial.runs.executor import Task
from sparsedial.runs.in_process import InProcess
from sparsedial.runs.job import Job
from sparsedial.runs.policy import Listener, carry_out
from sparsedial.runs.run_store import RunStore
from sparsedial.shape.counts import forward_flops_per_token
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape
from sparsedial.text.prepare import Text, prepare
from sparsedial.text.splitting import Splitting

WIDTH, CONTEXT, BATCH = 32, 128, 8
STEPS = 800  # about 0.8 million tokens
LEAST_STEPS = 50  # a model that saw less of a text says little of it
RATE = 1e-2
EVALUATION_TOKENS = 1 << 16  # of validation text that score it
SCORED_WINDOWS = 8  # of a document, evenly spread: about a thousand tokens


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A trained reference model's losses, and what they cost."""

    model: ReferenceModel
    losses: dict[int, float]  # nats per token, by the document's number in the corpus


def reference_losses(
    sources: Sequence[str], splitting: Splitting, folder: Path, seed: int, device: str, listener: Listener
) -> Reference:
    """Train the model on windows of the train text, drawn at random and none twice, and score each train document.

    The text is prepared in `folder`, with the tokenizer `bytes`. A document is scored on at most eight windows.

    Raises: UserError where the text is too small, or the folder cannot be written.
    """
    began = time.perf_counter()
    text = prepare(sources, tokenizer="bytes", folder=folder / "text")
    store = RunStore(folder / "runs")
    run = train_reference(text, store, seed=seed, device=device, listener=listener)
    windows = _windows(text)
    means = _means(Scorer(load(store.checkpoint(run.hash)).to(torch.device(device))), text, windows)
    numbers = [number for number, split in enumerate(splitting.splits) if split == "train"]
    assert run.validation_loss is not None, "a run that finished was scored"
    model = ReferenceModel(
        shape=run.shape,
        run=run.hash,
        tokens=run.tokens,
        validation_loss=run.validation_loss,
        documents_scored=len(numbers),
        tokens_scored=int(windows.scored_W.sum()),
        training_flops=float(run.flops),
        scoring_flops=float(len(windows.starts_W) * CONTEXT * forward_flops_per_token(run.shape, CONTEXT)),
        seconds=time.perf_counter() - began,
    )
    return Reference(model=model, losses=dict(zip(numbers, means.tolist(), strict=True)))


def train_reference(
    text: Text,
    store: RunStore,
    *,
    seed: int,
    device: str,
    listener: Listener,
    context: int = CONTEXT,
    field: str = "score",
    otherwise: str = "another <score>",
) -> Run:
    """The run of a reference model, with its checkpoint; one that is in the store is not trained again.

    An error is about the setting `field`, and names what `otherwise` could be given.

    Raises: UserError where the train text is too small, or the run diverged.
    """
    recipe = reference_recipe(text, context, seed, field, otherwise)
    job = Job(
        shape=reference_shape(text, context),
        recipe=recipe,
        text_digest=text.digest,
        tokenizer=text.tokenizer.digest,
        device=device,
        kernels=native.kind(device),
    )
    task = Task(job=job, label="reference model", evaluation_tokens=EVALUATION_TOKENS, keep_checkpoint=True)
    run = carry_out([(task,)], executor=InProcess(text=text, store=store), shelf=store, listener=listener)[job.hash]
    if not run.finished:
        raise UserError(f"the reference model diverged: {run.reason}", hint="give another <seed>", field=field)
    return run


def reference_shape(text: Text, context: int) -> Shape:
    """The shape of a reference model for a text."""
    return Ladder(vocab_size=text.tokenizer.vocab_size, context=context).shape(WIDTH, 0)


def reference_recipe(text: Text, context: int, seed: int, field: str, otherwise: str) -> Recipe:
    """The recipe of a reference model for a text.

    Raises: UserError where the train text is too small.
    """
    wanted, per_step = STEPS * BATCH * CONTEXT, BATCH * context
    steps = min(wanted // per_step, (text.train_tokens - context) // per_step)
    least = LEAST_STEPS * BATCH * CONTEXT
    if steps * per_step < least:
        raise UserError(
            f"{text.train_tokens:,} train tokens are too few for a reference model",
            hint=f"give text with {least + context:,} tokens to train on, or {otherwise}",
            field=field,
        )
    return Recipe(learning_rate=RATE, steps=steps, batch=BATCH, context=context, seed=seed)


@dataclass(frozen=True, kw_only=True)
class _Windows:
    """The windows that score the train documents; each belongs to one document."""

    starts_W: np.ndarray  # the token before the first that is scored
    scored_W: np.ndarray  # how many tokens of it are: those of its document, and the end token after it
    documents_W: np.ndarray  # from 0, in the order of the train text


def _windows(text: Text) -> _Windows:
    """At most eight windows of each train document, evenly spread; a short document has one."""
    import polars  # slow to import

    rows = text.manifest.filter(polars.col("split") == "train").select("first_token", "tokens").collect()
    firsts, tokens = (rows[name].to_numpy().astype(np.int64) for name in ("first_token", "tokens"))
    whole = np.maximum(1, tokens // CONTEXT)
    counts = np.minimum(SCORED_WINDOWS, whole)
    documents_W = np.repeat(np.arange(len(counts)), counts)
    places_W = np.arange(len(documents_W)) - np.repeat(np.cumsum(counts) - counts, counts)
    offsets_W = places_W * whole[documents_W] // counts[documents_W] * CONTEXT
    return _Windows(
        starts_W=firsts[documents_W] - 1 + offsets_W,
        scored_W=np.minimum(CONTEXT, tokens[documents_W] + 1 - offsets_W),
        documents_W=documents_W,
    )


def _means(scorer: Scorer, text: Text, windows: _Windows) -> np.ndarray:
    """The mean loss of each document's scored tokens.

    Shapes: float64 [documents]
    Units:  nats per token
    """
    tokens, sums_W = text.tokens("train"), np.empty(len(windows.starts_W))
    count = windows_at_once(CONTEXT + 1)
    for begin in range(0, len(sums_W), count):
        starts, scored = windows.starts_W[begin : begin + count], windows.scored_W[begin : begin + count]
        places_WS1 = np.minimum(starts[:, np.newaxis] + np.arange(CONTEXT + 1), len(tokens) - 1)
        _, nats_WS = scorer.losses(torch.from_numpy(tokens[places_WS1].astype(np.int64)), CONTEXT)
        inside_WS = np.arange(CONTEXT) < scored[:, np.newaxis]
        sums_W[begin : begin + count] = (nats_WS.double().cpu().numpy() * inside_WS).sum(axis=1)
    totals = np.bincount(windows.documents_W, weights=sums_W)
    return totals / np.bincount(windows.documents_W, weights=windows.scored_W)
