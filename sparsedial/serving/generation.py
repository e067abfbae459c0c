"""Text out: one token after another from a model, with a cache.

B sequences, S positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.model.transformer import Transformer
from sparsedial.serving.decoder import Decoder


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn.

    Raises: UserError for values outside their range.
    """

    temperature: float = 0.8  # 0 takes the likeliest token
    top_k: int | None = None  # draw from this many likeliest tokens
    top_p: float = 1.0  # draw from the likeliest tokens that hold this much probability
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise UserError(f"generate: temperature={self.temperature} is below 0")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"generate: top_k={self.top_k} is below 1")
        if not 0 < self.top_p <= 1:
            raise UserError(f"generate: top_p={self.top_p} lies outside 0..1")
        if not 0 <= self.seed < 2**62:
            raise UserError(f"generate: seed={self.seed} lies outside 0..{2**62 - 1}")


def probabilities(logits_V: Tensor, sampling: Sampling) -> Tensor:
    """The distribution that the next token is drawn from.

    Shapes: [V] to [V]
    Source: top-p, Holtzman et al. 2020 (arXiv 1904.09751)
    """
    if sampling.temperature == 0:
        return torch.zeros_like(logits_V).scatter_(0, logits_V.argmax().unsqueeze(0), 1.0)
    scaled_V = logits_V.double() / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < len(scaled_V):
        least = scaled_V.topk(sampling.top_k).values[-1]
        scaled_V = scaled_V.masked_fill(scaled_V < least, float("-inf"))
    share_V = scaled_V.softmax(0)
    if sampling.top_p < 1:
        sorted_V, order_V = share_V.sort(descending=True)
        beyond_V = sorted_V.cumsum(0) - sorted_V >= sampling.top_p  # the token that crosses the line stays
        share_V = share_V.index_fill(0, order_V[beyond_V], 0.0)
        share_V = share_V / share_V.sum()
    return share_V


def draw(logits_BV: Tensor, sampling: Sampling, draws: Sequence[torch.Generator]) -> list[int]:
    """The next token of every sequence, each drawn by its own generator."""
    if sampling.temperature == 0:
        if logits_BV.device.type == "cpu":
            return logits_BV.float().numpy().argmax(1).tolist()  # PyTorch's takes five times as long there
        return logits_BV.argmax(1).tolist()
    shares_BV = [probabilities(logits_V, sampling) for logits_V in logits_BV.float().cpu()]
    return [int(torch.multinomial(row, 1, generator=own)) for row, own in zip(shares_BV, draws, strict=True)]


def generate(
    model: Transformer, prompt: Sequence[int], tokens: int, sampling: Sampling, end_token: int | None = None
) -> Iterator[int]:
    """Yield up to `tokens` new ids after a prompt; stops after the end token, which is not yielded.

    Where the model's context is full, its newer half is read again and the rest forgotten.

    Raises: UserError for an empty prompt, or an id outside the vocabulary.
    """
    for (token,) in generate_together(model, [prompt], tokens, sampling, end_token):
        if token is None:
            return
        yield token


def generate_together(
    model: Transformer, prompts: Sequence[Sequence[int]], tokens: int, sampling: Sampling, end_token: int | None = None
) -> Iterator[list[int | None]]:
    """Yield the next id of every prompt, up to `tokens` times; None from a sequence's end token on.

    Sequence b draws with seed + b, so it goes on as it would alone.

    Raises: UserError for an empty prompt, or an id outside the vocabulary.
    """
    if not all(prompts) or not prompts:
        raise UserError("generate: the prompt holds no token", hint="give at least one character")
    draws = [torch.Generator().manual_seed(sampling.seed + number) for number in range(len(prompts))]
    context = model.shape.context
    room = min(context, max(map(len, prompts)) + tokens)
    ids = [list(prompt) for prompt in prompts]
    ended = [False] * len(prompts)
    decoder, logits_BV = _read_again(model, ids, context, room)
    for _ in range(tokens):
        drawn: list[int | None] = []
        for number, token in enumerate(draw(logits_BV, sampling, draws)):
            ended[number] |= token == end_token
            drawn.append(None if ended[number] else token)
            ids[number].append(token)
        yield drawn
        if all(ended):
            return
        if decoder.cache.filled == context:
            decoder, logits_BV = _read_again(model, ids, max(1, context // 2), context)
        else:
            logits_BV = decoder.step([row[-1] for row in ids])


def _read_again(model: Transformer, ids: Sequence[Sequence[int]], most: int, room: int) -> tuple[Decoder, Tensor]:
    """A decoder with room for so many positions that has read the last `most` ids of every sequence.

    The shorter ones are padded on their left.
    """
    device = model.embedding_VD.device
    last = [row[-most:] for row in ids]
    length = max(map(len, last))
    ids_BS = torch.tensor([[row[0]] * (length - len(row)) + list(row) for row in last], device=device)
    real_BS = torch.tensor([[False] * (length - len(row)) + [True] * len(row) for row in last], device=device)
    decoder = Decoder(model, len(ids), room)
    return decoder, decoder.read(ids_BS, None if bool(real_BS.all()) else real_BS)
