"""The next tokens of several answers, each drawn as its own request says. B answers, V vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.model.greedy import likeliest
from sparsedial.serving.adjusting import adjusted
from sparsedial.serving.generation import draw_one
from sparsedial.serving.guide import Guide
from sparsedial.serving.sampling import Sampling


@dataclass(frozen=True, eq=False)
class Draws:
    """How an answer's tokens are drawn, and its own chance."""

    sampling: Sampling
    chance: torch.Generator
    guide: Guide | None = None  # the form that the answer keeps to
    written: Counter[int] = field(default_factory=Counter)  # how often each token was drawn, where that counts

    @property
    def likeliest(self) -> bool:
        """Whether the token that the model finds likeliest is always the next one."""
        return self.sampling.temperature == 0 and not self.sampling.adjusts and self.guide is None


def draws_of(sampling: Sampling, guide: Guide | None = None) -> Draws:
    """The draws of a new answer: those of `generate` with the same seed."""
    return Draws(sampling, torch.Generator().manual_seed(sampling.seed), guide)


def draw_each(logits_BV: Tensor, draws: Sequence[Draws]) -> list[int | Exception]:
    """The next token of every answer, or what forbids to draw it."""
    if all(one.likeliest for one in draws):
        try:
            return list(likeliest(logits_BV))
        except UserError:
            pass  # of one of them: which, the others do not suffer
    return [_drawn(row_V, one) for row_V, one in zip(logits_BV.float().cpu(), draws, strict=True)]


def _drawn(logits_V: Tensor, draws: Draws) -> int | Exception:
    sampling = draws.sampling
    try:
        if sampling.adjusts:
            logits_V = adjusted(logits_V, sampling, draws.written)
        if draws.guide is not None:
            logits_V = draws.guide.allowed(logits_V)
        token = _one(logits_V, draws)
        if sampling.adjusts:
            draws.written[token] += 1
        if draws.guide is not None:
            draws.guide.wrote(token)
        return token
    except Exception as error:  # such as torch.multinomial's of infinite logits
        return error


def _one(logits_V: Tensor, draws: Draws) -> int:
    if draws.sampling.temperature == 0:
        return likeliest(logits_V.unsqueeze(0))[0]
    return draw_one(logits_V, draws.sampling, draws.chance)
