"""Generating text: tokens drawn one after another from a model's logits. B sequences, V vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.model.gates import Gates
from sparsedial.model.greedy import ALL, Vocabulary, go_on, likeliest, require_numbers
from sparsedial.model.transformer import Transformer
from sparsedial.model.turned import side_by_side
from sparsedial.serving.sampling import Sampling
from sparsedial.shape.turned import Turned


def probabilities(logits_V: Tensor, sampling: Sampling) -> Tensor:
    """The distribution from which the next token is drawn.

    Shapes: [V] to [V]
    Raises: UserError for logits that are not numbers.
    Source: top-p, Holtzman et al. 2020 (arXiv 1904.09751)
    """
    largest = float(logits_V.max())
    require_numbers([largest])
    if sampling.temperature == 0:
        return torch.zeros_like(logits_V).scatter_(0, logits_V.argmax().unsqueeze(0), 1.0)
    scaled_V = (logits_V.double() - largest) / sampling.temperature  # 0 at most: no temperature makes it infinite
    if sampling.top_k is not None and sampling.top_k < len(scaled_V):
        least = scaled_V.topk(sampling.top_k).values[-1]
        scaled_V = scaled_V.masked_fill(scaled_V < least, float("-inf"))
    share_V = scaled_V.softmax(0)
    if sampling.top_p < 1:
        sorted_V, order_V = share_V.sort(descending=True)
        beyond_V = sorted_V.cumsum(0) - sorted_V >= sampling.top_p  # the token that crosses top_p stays
        share_V = share_V.index_fill(0, order_V[beyond_V], 0.0)
        share_V = share_V / share_V.sum()
    return share_V


def draw(logits_BV: Tensor, sampling: Sampling, draws: Sequence[torch.Generator]) -> list[int]:
    """The next token of every sequence, each drawn by its own generator."""
    if sampling.temperature == 0:
        return likeliest(logits_BV)
    return [draw_one(row_V, sampling, own) for row_V, own in zip(logits_BV.float().cpu(), draws, strict=True)]


def draw_one(logits_V: Tensor, sampling: Sampling, draws: torch.Generator) -> int:
    """A sequence's next token, from logits on the CPU, at a temperature above 0."""
    return int(torch.multinomial(probabilities(logits_V, sampling), 1, generator=draws))


def generate(
    model: Transformer, prompt: Sequence[int], tokens: int, sampling: Sampling, vocabulary: Vocabulary = ALL
) -> Iterator[int]:
    """Yield up to `tokens` new ids after a prompt; stops after an end token, which is not yielded.

    Where the text fills the model's context, its newer half is read again and the rest forgotten.

    Raises: UserError for an empty prompt, or an id outside the vocabulary.
    """
    for (token,) in generate_together(model, [prompt], tokens, sampling, vocabulary):
        if token is None:
            return
        yield token


def generate_together(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    sampling: Sampling,
    vocabulary: Vocabulary = ALL,
    settings: Sequence[Turned] = (),
    gates: Gates | None = None,
) -> Iterator[list[int | None]]:
    """Yield the next id of every prompt, up to `tokens` times; None once an end token has come.

    Sequence b draws with seed + b, so it continues as it would alone. It may have a setting of the dial of its own,
    `settings[b]`; those of one call may differ in k. `gates` as for `at_setting`.

    Raises: UserError for an empty prompt, an id outside the vocabulary, or settings that the model cannot have or that
        do not go together.
    """
    if settings and len(settings) != len(prompts):
        raise UserError(f"{len(settings)} settings were given for {len(prompts)} prompts")
    model, top_k_LB = side_by_side(model, settings, gates) if settings else (model, None)
    draws = [torch.Generator().manual_seed(sampling.seed + number) for number in range(len(prompts))]

    def pick(logits_BV: Tensor, numbers: Sequence[int]) -> list[int]:
        return draw(logits_BV, sampling, [draws[number] for number in numbers])

    return go_on(model, prompts, tokens, pick, vocabulary, top_k_LB)
