"""What ranks exchange in a step: gradients go to the owners of their weights, and new weights from these to all.

All ranks send the same messages in the same order, that in which a backward pass gives the gradients. A message goes as
soon as all of its gradients are there and those before it have gone, while the backward pass goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from sparsedial.model.transformer import Transformer
from sparsedial.model.working import Working
from sparsedial.records.recipe import Recipe
from sparsedial.training.held import held_by
from sparsedial.training.messages import AHEAD, Message, Piece, in_order, messages
from sparsedial.training.muon_matrices import by_muon
from sparsedial.training.owners import owners
from sparsedial.training.ranks import Ranks, UnderWay


class Flow:
    """Messages under way, a few at a time: what the first has brought is taken before one more is begun."""

    def __init__(self, take: Callable[[Message, Tensor], None]) -> None:
        self._take, self._under_way = take, deque[tuple[Message, UnderWay]]()

    def begin(self, message: Message, begun: Callable[[], UnderWay]) -> None:
        """Begin a message once there is room for it."""
        self.end(most=AHEAD - 1)
        self._under_way.append((message, begun()))

    def end(self, most: int = 0) -> None:
        """Wait until so many are under way at most."""
        while len(self._under_way) > most:
            message, under_way = self._under_way.popleft()
            self._take(message, under_way.arrived())


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
        parts = owners(model, recipe, ranks.count)
        held = {(one.weight, one.first): one.tensor for one in held_by(model, optimizers)}
        own = [part for part in parts if part.owner == ranks.index]
        if held.keys() != {(part.weight, part.first) for part in own}:
            raise ValueError(f"the optimizers do not hold what rank {ranks.index} of {ranks.count} owns")
        self._own = {part.weight: (part, held[part.weight, part.first]) for part in own}
        named = model.named_parameters()
        self._by_adamw = [parameter for name, parameter in named if not by_muon(name, parameter, recipe)]
        self._copies: dict[Tensor, Tensor] = {}  # of what this rank owns, where an optimizer writes them itself
        self._messages = messages(in_order(parts, model), ranks.count, ranks.device)
        self._rows = {rank: row for row, rank in enumerate(ranks.partners)}
        # Of a step:
        self._holders: list[Tensor] = []  # of gradients
        self._begun, self._missing = 0, list[set[int]]()  # messages, and the weights whose gradient each waits for
        self._carried: list[Message] = []
        self._flow = Flow(self._add)

    def lend(self, weights: Iterable[Tensor]) -> dict[Tensor, Tensor]:
        """The working copies of these weights, or parts of weights, for an optimizer that writes them itself.

        The copies of all weights that AdamW moves on any rank are lent, so that gradients stay in the copies' type.
        """
        lent = self._working.lend(self._by_adamw)
        asked = set(weights)
        own = [(part, tensor, self._weights[part.weight]) for part, tensor in self._own.values() if tensor in asked]
        self._copies = {tensor: part.of(lent[weight]) for part, tensor, weight in own if weight in lent}
        return self._copies

    def forget_gradients(self) -> None:
        """Drop the gradients of the step before."""
        self._working.forget_gradients()
        for _, tensor in self._own.values():
            self._taker(tensor).grad = None

    def backward(self, loss: Tensor) -> list[Tensor]:
        """The gradients of what this rank owns, over the whole batch; all others are dropped as soon as they have gone.

        They are the mean over the ranks, since the shares of the batch are equal.
        """
        self._holders = self._working.holders
        self._begun, self._missing = 0, [{piece.weight for piece in message.pieces} for message in self._messages]
        self._carried, self._flow = [], Flow(self._add)
        with self._working.listening(self._arrived):
            loss.backward(torch.full_like(loss, 1 / self._ranks.count))
        while self._begun < len(self._messages):  # where weights have no gradient in this step
            self._begin()
        self._flow.end()
        takers = (self._taker(tensor) for _, tensor in self._own.values())
        return [taker.grad for taker in takers if taker.grad is not None]

    @torch.no_grad()
    def gather(self) -> None:
        """Take from each rank the new weights of what it owns."""
        flow = Flow(self._renew)
        for message in self._carried:
            flow.begin(message, lambda message=message: self._ranks.all_gather(self._packed_weights(message)))
        flow.end()

    def _taker(self, own: Tensor) -> Tensor:
        """Where the optimizer looks for the gradient of what this rank owns."""
        return self._copies.get(own, own)

    def _arrived(self, weight: int) -> None:
        """Begin the messages that have waited for this weight's gradient alone."""
        for missing in self._missing:
            missing.discard(weight)
        while self._begun < len(self._messages) and not self._missing[self._begun]:
            self._begin()

    def _begin(self) -> None:
        """Begin the next message; one without any gradient is left out, by all ranks."""
        message = self._messages[self._begun]
        self._begun += 1
        if any(self._holders[piece.weight].grad is not None for piece in message.pieces):
            self._carried.append(message)
            self._flow.begin(message, lambda: self._ranks.reduce_scatter(self._packed_gradients(message)))

    def _packed_gradients(self, message: Message) -> Tensor:
        sent = torch.empty(len(self._rows), message.slot, device=self._weights[0].device)
        pieces = [piece for piece in self._learning(message) if piece.owner in self._rows]
        _copy([(_slot(sent[self._rows[piece.owner]], piece), self._gradient(piece)) for piece in pieces])
        return sent

    def _learning(self, message: Message) -> Iterator[Piece]:
        """The pieces that have a gradient in this step."""
        return (piece for piece in message.pieces if self._holders[piece.weight].grad is not None)

    @torch.no_grad()
    def _add(self, message: Message, received: Tensor) -> None:
        """Keep the sums of what this rank owns, and drop the gradients of which no message is to come."""
        own = [piece for piece in self._learning(message) if piece.owner == self._ranks.index]
        crossed = self._ranks.index in self._rows  # its own gradients, which are among those that were added up
        for weight in message.last_of - (set[int]() if crossed else {piece.weight for piece in own}):
            self._drop(weight)
        if crossed:
            return _copy([(self._sum(piece), _slot(received[0], piece)) for piece in own])
        for piece in own:
            total = self._sum(piece)
            torch.add(self._gradient(piece), _slot(received[0], piece), out=total)
            for row in received[1:]:
                total += _slot(row, piece)
            if piece.weight in message.last_of:
                self._drop(piece.weight)
        return None

    def _drop(self, weight: int) -> None:
        """Drop a gradient, unless it is where this rank's optimizer looks for its own."""
        holder, own = self._holders[weight], self._own.get(weight)
        if own is None or self._taker(own[1]) is not holder:
            holder.grad = None

    def _sum(self, piece: Piece) -> Tensor:
        """Where this rank's optimizer looks for the gradient of a piece."""
        part, tensor = self._own[piece.weight]
        taker = self._taker(tensor)
        if taker.grad is None:
            taker.grad = torch.empty_like(taker)
        return taker.grad.view(-1)[piece.first - part.first : piece.first - part.first + piece.size]

    def _packed_weights(self, message: Message) -> Tensor:
        own = torch.empty(message.slot, device=self._weights[0].device)
        mine = (piece for piece in message.pieces if piece.owner == self._ranks.index)
        _copy([(_slot(own, piece), self._values(piece)) for piece in mine])
        return own

    def _renew(self, message: Message, received: Tensor) -> None:
        """Write the weights that others own."""
        others = (piece for piece in message.pieces if piece.owner != self._ranks.index)
        _copy([(self._values(piece), _slot(received[self._rows[piece.owner]], piece)) for piece in others])

    def _values(self, piece: Piece) -> Tensor:
        return self._weights[piece.weight].detach().view(-1)[piece.first : piece.first + piece.size]

    def _gradient(self, piece: Piece) -> Tensor:
        """A piece's values of its weight's gradient."""
        holder = self._holders[piece.weight]
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
