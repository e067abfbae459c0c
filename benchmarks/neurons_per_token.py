"""How many neurons a token needs: `python -m benchmarks.neurons_per_token CHECKPOINT CALIBRATE SCORE [SCORE …]`.

Of every dense feed-forward layer a share of the neurons takes part, and the loss on each text to score is compared with
the whole model's. "per token": each token has its own best neurons, by |activation| x norm of the outgoing weights, as
an ideal router would choose them. "for good": the same neurons for all tokens, those of the highest mean score on the
calibration text. "at random": drawn neurons for all tokens, the mean of three draws. Nothing is trained afterwards.
Intervals are over windows, 95 %. Writes benchmarks/records/neurons_per_token.json.

T tokens, F neurons of a layer, D d_model.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.keeping import keep
from sparsedial.model.attention import rms_norm
from sparsedial.model.checkpoint import load
from sparsedial.model.transformer import DenseFeedForward, Transformer
from sparsedial.pruning.counts import best, nearest
from sparsedial.pruning.neurons import activations_of, watch_neurons
from sparsedial.pruning.quality import Nats, mean_nats, nats_of
from sparsedial.pruning.scores import random_scores
from sparsedial.pruning.windows import Windows, read_windows
from sparsedial.records.record import plain
from sparsedial.text.tokenizer import load_tokenizer

RECORD = Path(__file__).parent / "records" / "neurons_per_token.json"
SHARES = (0.75, 0.5, 0.25)
CONTEXT, CALIBRATION_TOKENS, SCORED_TOKENS, DRAWS = 512, 8192, 4096, (1, 2, 3)
Chosen = Callable[[Tensor], Tensor]  # what multiplies the outgoing weights [T, F], with zeros for neurons that are off


def per_token(norm_F: Tensor, share: float, active_TF: Tensor) -> Tensor:
    """Each token keeps its own best neurons."""
    count = nearest(share * active_TF.shape[1])
    on_TK = (active_TF.abs() * norm_F).topk(count, dim=1).indices
    return torch.zeros_like(active_TF).scatter(1, on_TK, active_TF.gather(1, on_TK))


def for_good(on: Sequence[int], active_TF: Tensor) -> Tensor:
    """All tokens keep the same neurons."""
    kept_TF = torch.zeros_like(active_TF)
    kept_TF[:, list(on)] = active_TF[:, list(on)]
    return kept_TF


def chosen_by(model: Transformer, chosen: Mapping[int, Chosen]) -> None:
    """Let layers compute with chosen neurons alone."""
    for number, choose in chosen.items():
        part = model.blocks[number].feed_forward
        assert isinstance(part, DenseFeedForward)
        part.forward = partial(_forward, part, choose)


def _forward(
    part: DenseFeedForward, choose: Chosen, x_BSD: Tensor, norm_D: Tensor, eps: float, routing: object
) -> Tensor:
    active_TF = activations_of(part, rms_norm(x_BSD, norm_D, eps).flatten(0, 1))
    return x_BSD + (choose(active_TF) @ part.w_out_FD).view_as(x_BSD)


def measure(checkpoint: Path, calibrate: str, scored: Sequence[str]) -> dict[str, Any]:
    """The losses of the whole model and of each choice, by share and text."""
    model, tokenizer = load(checkpoint).eval(), load_tokenizer(checkpoint)
    read = partial(read_windows, tokenizer=tokenizer, vocab_size=model.shape.vocab_size, context=CONTEXT)
    windows = read([calibrate], tokens=CALIBRATION_TOKENS, field="calibrate")
    texts = {name: read([name], tokens=SCORED_TOKENS, field="score") for name in scored}
    seen = watch_neurons(model, torch.from_numpy(windows.ids_WS1.astype(np.int64)))
    scores = {number: mean_F * seen.norms[number] for number, mean_F in seen.activations.items()}
    widths = {number: len(score_F) for number, score_F in scores.items()}
    whole = nats_of(model, texts)
    found = {}
    for share in SHARES:
        by_token = {
            number: partial(per_token, torch.from_numpy(norm).float(), share) for number, norm in seen.norms.items()
        }
        ways = {"per token": [by_token], "for good": [_of(scores, share)]}
        ways["at random"] = [_of(random_scores(widths, seed), share) for seed in DRAWS]
        found[str(share)] = {way: _compared(model, choices, texts, whole) for way, choices in ways.items()}
        print(share, {way: {text: row["mean"] for text, row in by.items()} for way, by in found[str(share)].items()})
    return {
        "checkpoint": checkpoint.name,
        "calibration": {"text": _named(calibrate), "tokens": windows.tokens},
        "context": CONTEXT,
        "scored_tokens": {_named(name): text.tokens for name, text in texts.items()},
        "draws": len(DRAWS),
        "loss": {_named(name): nats.mean for name, nats in whole.items()},
        "loss_increase": found,
    }


def _named(text: str) -> str:
    return "/".join(Path(text).parts[-2:])


def _of(scores: Mapping[int, np.ndarray], share: float) -> dict[int, Chosen]:
    return {n: partial(for_good, best(score_F, nearest(share * len(score_F)))) for n, score_F in scores.items()}


def _compared(
    model: Transformer,
    choices: Sequence[Mapping[int, Chosen]],
    texts: Mapping[str, Windows],
    whole: Mapping[str, Nats],
) -> dict[str, Any]:
    """The mean increase over the choices, nats per token, by text."""
    losses = []
    for chosen in choices:
        chosen_by(model, chosen)
        losses.append(nats_of(model, texts))
    return {_named(name): plain(nats.above(whole[name])) for name, nats in mean_nats(losses).items()}


def main(words: Sequence[str]) -> None:
    """Measure, print, and write the record."""
    keep(RECORD, "python -m benchmarks.neurons_per_token", measure(Path(words[0]), words[1], words[2:]))


if __name__ == "__main__":
    main(sys.argv[1:])
