"""What every measure of a model is made from: the likelihood of given tokens, and greedy continuations.

W windows, B sequences of a call, S positions, D d_model, V vocabulary, R scored positions of all sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from sparsedial.errors import UserError
from sparsedial.model.decoder import alike, padded
from sparsedial.model.greedy import Vocabulary, go_on, likeliest
from sparsedial.model.transformer import Routing, Transformer
from sparsedial.model.working import Working
from sparsedial.records.recipe import Dtype
from sparsedial.text.tokenizer import Tokenizer

TOKENS_AT_ONCE = 4096
T = TypeVar("T")


@dataclass(frozen=True)
class Continuation:
    """A model's likelihood of what follows a context."""

    log_likelihood: float  # nats, summed over its tokens
    tokens: int
    greedy: bool  # whether each of its tokens is the likeliest one at its position


class Scorer:
    """Scores token ids by one model; its experts' loads are counted where the routing asks for losses."""

    def __init__(self, model: Transformer, *, routing: Routing | None = None, dtype: Dtype = "float32") -> None:
        self.model, self.routing = model, Routing() if routing is None else routing
        self._device = model.embedding_VD.device
        self._working = Working(model, dtype).model

    @torch.no_grad()
    def loss(self, windows_WS1: Tensor) -> float:
        """The summed loss of each window's ids after its first one, given those before them in the window.

        Shapes: [W, S+1] to a number
        Units: nats
        """
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for ids_BS1 in windows_WS1.split(max(1, TOKENS_AT_ONCE // (windows_WS1.shape[1] - 1))):
            ids_BS1 = ids_BS1.to(self._device)
            logits_TV = self._logits(ids_BS1[:, :-1])
            total += functional.cross_entropy(logits_TV, ids_BS1[:, 1:].flatten(), reduction="sum")
        return float(total)

    def _logits(self, ids_BS: Tensor, at: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Logits at some rows and columns of the ids, or at all of them. Shapes: to [R, V]"""
        model = self._working
        x_BSD = model.stream(ids_BS, model.place(ids_BS), self.routing)
        x_RD = x_BSD.flatten(0, 1) if at is None else x_BSD[at]
        return model.logits(x_RD.unsqueeze(0), model.norm_D).squeeze(0).float()

    def log_likelihoods(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Continuation]:
        """The log-likelihood of each continuation after its context; pairs are (context ids, continuation ids).

        Where a pair is longer than the model's context, the beginning of its context is left out.

        Raises: UserError for an empty context or continuation, or a continuation longer than the model's context.
        """
        most = self.model.shape.context
        for context, continuation in pairs:
            if not context or not continuation:
                raise UserError(
                    "a context or a continuation has no tokens",
                    hint="begin an empty context with the tokenizer's end token",
                )
            if len(continuation) > most:
                raise UserError(
                    f"a continuation of {len(continuation)} tokens does not fit the model's context of {most}"
                )
        rows = [[*context, *continuation][-most - 1 :] for context, continuation in pairs]
        counts = [len(continuation) for _, continuation in pairs]

        def score(group: list[int]) -> list[Continuation]:
            return self._continuations([rows[number] for number in group], [counts[number] for number in group])

        return _by_length([len(row) - 1 for row in rows], score)

    @torch.no_grad()
    def _continuations(self, rows: Sequence[Sequence[int]], counts: Sequence[int]) -> list[Continuation]:
        """Score the last ids of each row; `counts` says how many."""
        ids_BS = padded([row[:-1] for row in rows], self._device)
        at_R = [
            (number, position)
            for number, (row, count) in enumerate(zip(rows, counts, strict=True))
            for position in range(len(row) - 1 - count, len(row) - 1)
        ]
        targets_R = torch.tensor([rows[number][position + 1] for number, position in at_R], device=self._device)
        numbers_R, positions_R = torch.tensor(at_R, device=self._device).unbind(1)
        logits_RV = self._logits(ids_BS, (numbers_R, positions_R))
        nats_R = functional.cross_entropy(logits_RV, targets_R, reduction="none").double()
        best_R = logits_RV.argmax(1) == targets_R
        return [
            Continuation(-float(nats.sum()), len(nats), bool(best.all()))
            for nats, best in zip(nats_R.split(list(counts)), best_R.split(list(counts)), strict=True)
        ]

    def greedy_until(
        self, prompts: Sequence[Sequence[int]], tokenizer: Tokenizer, until: Sequence[str], tokens: int
    ) -> list[str]:
        """The greedy continuation of each prompt, at most `tokens` long.

        It ends before the first of the texts in `until`, or before the end token.

        Raises: UserError for an empty prompt, or an id outside the vocabulary.
        """
        most = self.model.shape.context

        def say(group: list[int]) -> list[str]:
            return self._continue([prompts[number] for number in group], tokenizer, until, tokens)

        return _by_length([min(most, len(prompt) + tokens) for prompt in prompts], say)

    def _continue(
        self, prompts: Sequence[Sequence[int]], tokenizer: Tokenizer, until: Sequence[str], tokens: int
    ) -> list[str]:
        made: list[list[int]] = [[] for _ in prompts]
        recent = max((len(stop.encode()) for stop in until), default=0) + 1  # tokens that a stop text can span

        def pick(logits_BV: Tensor, numbers: Sequence[int]) -> list[int]:
            stopped = [_end(tokenizer.decode(made[number][-recent:]), until) is not None for number in numbers]
            picked = likeliest(logits_BV.float())
            return [tokenizer.end_token if ended else token for ended, token in zip(stopped, picked, strict=True)]

        absent = tuple(tokenizer.absent(self.model.shape.vocab_size).tolist())
        vocabulary = Vocabulary(ends=frozenset({tokenizer.end_token}), absent=absent)
        for row in go_on(self.model, prompts, tokens, pick, vocabulary):
            for ids, token in zip(made, row, strict=True):
                if token is not None:
                    ids.append(token)
        texts = [tokenizer.decode(ids) for ids in made]
        return [text[: _end(text, until)] for text in texts]


def _by_length(lengths: Sequence[int], answer: Callable[[list[int]], list[T]]) -> list[T]:
    """An answer for each row, asked for in groups of about one length."""
    found: dict[int, T] = {}
    for group in alike(lengths, TOKENS_AT_ONCE):
        found.update(zip(group, answer(group), strict=True))
    return [found[number] for number in range(len(lengths))]


def _end(text: str, until: Sequence[str]) -> int | None:
    """Where the first of these begins in a text."""
    return min((at for stop in until if (at := text.find(stop)) >= 0), default=None)
