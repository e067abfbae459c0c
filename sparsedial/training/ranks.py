"""What the devices that train one model send to each other; nothing else communicates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from sparsedial.errors import UserError

Figure = TypeVar("Figure", float, Tensor)  # a number, or one that is on its device
Labelled = tuple[Any, Tensor]  # a tensor, and what its rank says of it


def _first_of(*names: str) -> Any:
    """The first of these that PyTorch has; None where it was built without collectives, which one process needs not."""
    return next((getattr(distributed, name) for name in names if hasattr(distributed, name)), None)


# PyTorch 2.13 gave these two their names; the older ones still work there, with a warning
_reduce_scatter = _first_of("reduce_scatter_single", "reduce_scatter_tensor")
_all_gather = _first_of("all_gather_single", "all_gather_into_tensor")


@dataclass(frozen=True)
class Alone:
    """One device: its figures are already those of the whole batch."""

    count = 1
    index = 0

    def add_up(self, tensors: list[Tensor]) -> None:
        """Leave the tensors as they are."""

    def agree(self, loss: Figure, gradient_norm: Figure) -> tuple[Figure, Figure]:
        """Both as they are."""
        return loss, gradient_norm

    def sums(self, figures: Sequence[float]) -> list[float]:
        """The figures as they are."""
        return list(figures)

    def first(self, figure: float) -> float:
        """The figure as it is."""
        return figure

    def at_first(self, act: Callable[[], None]) -> None:
        """Act."""
        act()

    def collect(self, held: Sequence[Labelled]) -> Iterator[Labelled]:
        """The tensors as they are."""
        yield from held


@dataclass(frozen=True)
class UnderWay:
    """A message that has been begun."""

    work: Any
    sent: Tensor  # nobody else may write or free it before it has gone
    received: Tensor

    def arrived(self) -> Tensor:
        """What it brought, row by row; a CPU waits for it, a GPU's stream does."""
        self.work.wait()
        return self.received


@dataclass(frozen=True)
class Ranks:
    """The processes of a group, each with all weights and an equal share of every batch."""

    group: distributed.ProcessGroup
    device: str = "cpu"  # kind of device that holds the group's messages

    @property
    def count(self) -> int:
        """The number of ranks."""
        return self.group.size()

    @property
    def index(self) -> int:
        """Which of them this process is."""
        return self.group.rank()

    def add_up(self, tensors: list[Tensor]) -> None:
        """Make each tensor its sum over the ranks; all are copied into one message, of float32 if they are floats."""
        if not tensors:
            return
        exact = torch.float32 if tensors[0].is_floating_point() else tensors[0].dtype
        message = torch.cat([tensor.flatten().to(exact) for tensor in tensors])
        distributed.all_reduce(message, group=self.group)
        for tensor, part in zip(tensors, message.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    @property
    def partners(self) -> list[int]:
        """The ranks for each of which a message has a row: on a CPU all others, and for nccl this one as well."""
        return [rank for rank in range(self.count) if self.device != "cpu" or rank != self.index]

    def reduce_scatter(self, sent: Tensor) -> UnderWay:
        """Begin to send each partner its row. What arrives is this rank's row of each other, or nccl's sum of all.

        On a CPU each rank adds up by itself: gloo's own reduce-scatter all-reduces a copy of the message, which sends
        twice as much.

        Shapes: sent [partners, slot], received [partners, slot] on a CPU and [1, slot] elsewhere
        """
        if self.device == "cpu":
            return self._exchanged(sent)
        received = sent.new_empty(1, sent.shape[1])
        work = _reduce_scatter(received.view(-1), sent.view(-1), group=self.group, async_op=True)
        return UnderWay(work, sent, received)

    def all_gather(self, own: Tensor) -> UnderWay:
        """Begin to send all partners the same row. What arrives are their rows.

        On a CPU this is the same exchange: gloo's own all-gather copies what arrives once more.

        Shapes: own [slot], received [partners, slot]
        """
        if self.device == "cpu":
            return self._exchanged(own.expand(self.count - 1, -1).contiguous())
        received = own.new_empty(self.count, len(own))
        work = _all_gather(received.view(-1), own, group=self.group, async_op=True)
        return UnderWay(work, own, received)

    def _exchanged(self, sent: Tensor) -> UnderWay:
        """Begin to send each other rank its row, and to receive one from each."""
        received, rows = torch.empty_like(sent), [int(rank != self.index) for rank in range(self.count)]
        work = distributed.all_to_all_single(received, sent, rows, rows, group=self.group, async_op=True)
        return UnderWay(work, sent, received)

    def agree(self, loss: Figure, gradient_norm: Figure) -> tuple[Figure, Figure]:
        """The whole batch's loss, which is the mean, and the norm of the whole gradient; on every rank the same.

        Each rank gives the norm of the gradients that it owns. All clip by one norm, and all or none take the step.
        Tensors stay on their device, and nothing waits for them.
        """
        given = (torch.as_tensor(figure, dtype=torch.float64, device=self.device) for figure in (loss, gradient_norm))
        mean, own = given
        figures = torch.stack([mean / self.count, own * own])
        distributed.all_reduce(figures, group=self.group)
        whole = torch.stack([figures[0], figures[1].sqrt()])
        return whole.unbind() if isinstance(loss, Tensor) else tuple(whole.tolist())  # pyright: ignore[reportReturnType]

    def sums(self, figures: Sequence[float]) -> list[float]:
        """The sum of each figure over the ranks, the same numbers on every rank; this waits for all of them."""
        message = torch.tensor(list(figures), dtype=torch.float64, device=self.device)
        distributed.all_reduce(message, group=self.group)
        return message.tolist()

    def first(self, figure: float) -> float:
        """The first rank's figure, on every rank."""
        message = torch.tensor(figure, dtype=torch.float64, device=self.device)
        distributed.broadcast(message, group_src=0, group=self.group)
        return message.item()

    def at_first(self, act: Callable[[], None]) -> None:
        """Let rank 0 act while the others wait.

        Raises: UserError, on all ranks, as rank 0 raised it.
        """
        said: list[UserError | None] = [None]
        if self.index == 0:
            try:
                act()
            except UserError as error:
                said = [error]
        distributed.broadcast_object_list(said, group=self.group, group_src=0)
        if said[0] is not None:
            raise said[0]

    def collect(self, held: Sequence[Labelled]) -> Iterator[Labelled]:
        """At rank 0 the tensors that the ranks hold, one after the other: first its own, then each other's.

        At the others nothing. All have to exhaust it. A tensor has arrived when it is yielded, and none before.
        """
        said = [(label, tensor.shape, tensor.dtype) for label, tensor in held]
        everyone: list[Any] = [None] * self.count
        distributed.gather_object(said, everyone if self.index == 0 else None, group=self.group, group_dst=0)
        if self.index:
            for _, tensor in held:
                distributed.send(tensor.contiguous().to(self.device), group=self.group, group_dst=0)
            return
        yield from held
        for rank, theirs in enumerate(everyone[1:], start=1):
            for label, shape, dtype in theirs:
                tensor = torch.empty(shape, dtype=dtype, device=self.device)
                distributed.recv(tensor, group=self.group, group_src=rank)
                yield label, tensor


ALONE = Alone()
