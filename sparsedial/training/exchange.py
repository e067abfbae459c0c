"""What ranks exchange in a step: gradients go to the owners of their weights, and new weights from these to all.

A message has a slot for each rank. What a rank owns lies in its slots, one part after the other, and messages are as
many as it takes for none to be large. The slots are equally long, so those of a rank that owns less are not full.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedial.model.transformer import Transformer
from sparsedial.model.working import Working
from sparsedial.records.recipe import Recipe
from sparsedial.training.held import held_by
from sparsedial.training.muon_matrices import by_muon
from sparsedial.training.owners import Part, owners
from sparsedial.training.ranks import Ranks

MESSAGE_BYTES = {"cpu": 2**22, "cuda": 2**25}  # at most: no rank holds a second copy of all gradients
VALUE_BYTES = 4  # messages are in float32


@dataclass(frozen=True)
class Piece:
    """Values of a weight that lie together in a message."""

    weight: int
    first: int  # of its values
    size: int
    owner: int
    place: int  # in the owner's slot


@dataclass(frozen=True)
class Message:
    """What one message carries."""

    slot: int  # values for each rank
    pieces: Sequence[Piece]


def slots(parts: Sequence[Part], count: int, device: str) -> tuple[int, int]:
    """How many messages carry these parts of weights between devices of a kind, and the values of a slot."""
    held = [0] * count
    for part in parts:
        held[part.owner] += part.values
    longest = max(held)
    number = math.ceil(longest * count * VALUE_BYTES / MESSAGE_BYTES[device])
    slot = math.ceil(longest / max(1, number))
    return math.ceil(longest / max(1, slot)), slot


def messages(parts: Sequence[Part], count: int, device: str) -> list[Message]:
    """The messages that carry these parts of weights between devices of a kind."""
    number, slot = slots(parts, count, device)
    pieces = defaultdict[int, list[Piece]](list)
    filled = [0] * count
    for part in parts:
        first = part.first
        while first < part.last:
            message, place = divmod(filled[part.owner], slot)
            size = min(part.last - first, slot - place)
            pieces[message].append(Piece(part.weight, first, size, part.owner, place))
            filled[part.owner] += size
            first += size
    return [Message(slot, pieces[message]) for message in range(number)]


class Exchange:
    """The messages of the ranks that train one model, from the view of one of them."""

    def __init__(
        self,
        model: Transformer,
        optimizers: Sequence[torch.optim.Optimizer],
        working: Working,
        recipe: Recipe,
        ranks: Ranks,
    ) -> None:
        self._weights, self._working, self._ranks = list(model.parameters()), working, ranks
        self._parts = owners(model, recipe, ranks.count)
        held = {(one.weight, one.first): one.tensor for one in held_by(model, optimizers)}
        own = [part for part in self._parts if part.owner == ranks.index]
        if held.keys() != {(part.weight, part.first) for part in own}:
            raise ValueError(f"the optimizers do not hold what rank {ranks.index} of {ranks.count} owns")
        self._own = [(part, held[part.weight, part.first]) for part in own]
        named = model.named_parameters()
        self._by_adamw = [parameter for name, parameter in named if not by_muon(name, parameter, recipe)]
        self._copies: dict[Tensor, Tensor] = {}  # of what this rank owns, where an optimizer writes them itself
        self._known: dict[frozenset[int], list[Message]] = {}  # by the weights that have gradients
        self._carried: list[Message] = []  # of this step

    def lend(self, weights: Iterable[Tensor]) -> dict[Tensor, Tensor]:
        """The working copies of these weights, or parts of weights, for an optimizer that writes them itself.

        The copies of all weights that AdamW moves on any rank are lent, so that gradients stay in the copies' type.
        """
        lent = self._working.lend(self._by_adamw)
        asked = set(weights)
        own = [(part, tensor, self._weights[part.weight]) for part, tensor in self._own if tensor in asked]
        self._copies = {tensor: part.of(lent[weight]) for part, tensor, weight in own if weight in lent}
        return self._copies

    def forget_gradients(self) -> None:
        """Drop the gradients of the step before."""
        self._working.forget_gradients()
        for _, tensor in self._own:
            self._copies.get(tensor, tensor).grad = None

    def gradients(self) -> list[Tensor]:
        """The gradients of what this rank owns, over the whole batch; all others are dropped.

        They are the mean over the ranks, since the shares of the batch are equal.
        """
        holders = self._working.holders
        self._carried = self._messages(frozenset(n for n, holder in enumerate(holders) if holder.grad is not None))
        for message in self._carried:
            sent = torch.zeros(self._ranks.count, message.slot, device=holders[0].device)
            _copy([(_slot(sent[piece.owner], piece), _gradient(holders, piece)) for piece in message.pieces])
            own = self._ranks.reduce_scatter(sent.view(-1)).div_(self._ranks.count)
            _copy([(_gradient(holders, piece), _slot(own, piece)) for piece in self._mine(message)])
        return self._handed_over(holders)

    @torch.no_grad()
    def gather(self) -> None:
        """Take from each rank the new weights of what it owns."""
        for message in self._carried:
            own = torch.zeros(message.slot, device=self._weights[0].device)
            _copy([(_slot(own, piece), self._values(piece)) for piece in self._mine(message)])
            sent = self._ranks.all_gather(own).view(self._ranks.count, message.slot)
            others = (piece for piece in message.pieces if piece.owner != self._ranks.index)
            _copy([(self._values(piece), _slot(sent[piece.owner], piece)) for piece in others])

    def _messages(self, learning: frozenset[int]) -> list[Message]:
        """Those of a step in which these weights learn: multi-token prediction's do not in all."""
        if learning not in self._known:
            parts = [part for part in self._parts if part.weight in learning]
            self._known[learning] = messages(parts, self._ranks.count, self._ranks.device)
        return self._known[learning]

    def _mine(self, message: Message) -> Iterator[Piece]:
        return (piece for piece in message.pieces if piece.owner == self._ranks.index)

    def _values(self, piece: Piece) -> Tensor:
        return self._weights[piece.weight].detach().view(-1)[piece.first : piece.first + piece.size]

    def _handed_over(self, holders: Sequence[Tensor]) -> list[Tensor]:
        """The gradients of what this rank owns, where its optimizers look for them."""
        gradients = list[Tensor]()
        takers = [(part, self._copies.get(tensor, tensor)) for part, tensor in self._own]
        for part, taker in takers:
            whole = holders[part.weight].grad
            if whole is not None:
                taker.grad = part.of(whole)
                gradients.append(taker.grad)
        kept = {id(taker) for _, taker in takers}
        for holder in holders:
            if id(holder) not in kept:
                holder.grad = None
        return gradients


def _gradient(holders: Sequence[Tensor], piece: Piece) -> Tensor:
    """A piece's values of its weight's gradient."""
    holder = holders[piece.weight]
    assert holder.grad is not None
    if not holder.grad.is_contiguous():
        holder.grad = holder.grad.contiguous()
    return holder.grad.view(-1)[piece.first : piece.first + piece.size]


def _slot(slot: Tensor, piece: Piece) -> Tensor:
    """Where a piece lies in its owner's slot."""
    return slot[piece.place : piece.place + piece.size]


def _copy(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Copy the second of each pair into the first, in a few launches."""
    copied = list(pairs)
    if copied:
        torch._foreach_copy_([into for into, _ in copied], [given for _, given in copied])  # pyright: ignore[reportPrivateImportUsage]
