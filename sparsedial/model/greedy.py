"""The loop that generates text: the likeliest token, one after another, for several sequences together.

B sequences that are not finished, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.model.decoder import Decoder, columns_of
from sparsedial.model.transformer import Transformer

Pick = Callable[[Tensor, Sequence[int]], list[int]]  # from logits [B, V] and the numbers of their sequences to ids


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Which ids end a text, and which no token has: these are never drawn."""

    ends: frozenset[int] = frozenset()
    absent: tuple[int, ...] = ()

    def mask(self, logits_BV: Tensor) -> Tensor:
        """The logits, with those of absent ids set to minus infinity in place."""
        if self.absent:
            logits_BV[:, self._columns] = float("-inf")
        return logits_BV

    @property
    def _columns(self) -> slice | list[int]:
        """A slice where the absent ids are one run, as those beyond a tokenizer's are; it costs far less."""
        first, last = self.absent[0], self.absent[-1]
        return slice(first, last + 1) if last - first + 1 == len(self.absent) else list(self.absent)


ALL = Vocabulary()  # every id is a token's, and none ends a text


def likeliest(logits_BV: Tensor, numbers: Sequence[int] = ()) -> list[int]:
    """The likeliest token of every sequence.

    Raises: UserError for logits that are not numbers.
    """
    if logits_BV.device.type == "cpu":
        rows_BV = logits_BV.float().numpy()  # PyTorch's argmax takes five times as long there
        found = rows_BV.argmax(1).tolist()
        require_numbers(rows_BV[row, token] for row, token in enumerate(found))
        return found
    best = logits_BV.max(1)
    require_numbers(best.values.tolist())
    return best.indices.tolist()


def require_numbers(largest: Iterable[float]) -> None:
    """Check the largest logits of some sequences, which are not a number where any of a sequence's is not.

    Raises: UserError.
    """
    if any(math.isnan(value) for value in largest):
        raise UserError(
            "the model's logits are not numbers, so no token can be drawn",
            hint="its weights are damaged, or too large for the type that it computes in",
        )


def go_on(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    pick: Pick = likeliest,
    vocabulary: Vocabulary = ALL,
    top_k_LB: Tensor | None = None,
) -> Iterator[list[int | None]]:
    """Yield the next id of every prompt, up to `tokens` times; None once an end token has come.

    `top_k_LB` is how many experts each sequence's tokens visit in each layer; by default all that they choose. Where a
    sequence fills the model's context, its newer half is read again and the rest forgotten.

    Raises: UserError for an empty prompt, or an id outside the vocabulary.
    """
    if not all(prompts) or not prompts:
        raise UserError("the prompt has no tokens", hint="give at least one character")
    context, ids = model.shape.context, [list(prompt) for prompt in prompts]
    decoder = Decoder(model, len(ids), min(context, max(map(len, ids)) + tokens))
    going, logits_BV = list(range(len(ids))), decoder.begin([row[-context:] for row in ids], top_k_LB)
    for made in range(tokens):
        if made:
            logits_BV = _read_on(decoder, ids, going, columns_of(going, top_k_LB))
        picked: list[int | None] = [None] * len(ids)
        for number, token in zip(going, pick(vocabulary.mask(logits_BV), going), strict=True):
            if token not in vocabulary.ends:
                picked[number] = token
                ids[number].append(token)
        yield picked
        going = [number for number in going if picked[number] is not None]
        if not going:
            return


def _read_on(decoder: Decoder, ids: Sequence[Sequence[int]], going: Sequence[int], top_k_LB: Tensor | None) -> Tensor:
    """Logits after the newest id of the sequences that are not finished."""
    cache, context = decoder.cache, decoder.model.shape.context
    full = [number for number in going if cache.filled[number] == context]
    if not full:
        return decoder.step([ids[number][-1] for number in going], going, top_k_LB)
    for number in full:
        cache.free(number)
    half = max(1, context // 2)
    newest = [ids[number][-half:] if number in full else ids[number][-1:] for number in going]
    return decoder.read(newest, going, top_k_LB)
