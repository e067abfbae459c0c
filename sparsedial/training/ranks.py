"""What the devices that train one model exchange in a step; nothing else in a step communicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

Figure = TypeVar("Figure", float, Tensor)  # a number, or one that is on its device


@dataclass(frozen=True)
class Alone:
    """One device: its figures are already those of the whole batch."""

    count = 1
    index = 0

    def average(self, gradients: list[Tensor]) -> None:
        """Leave the gradients as they are."""

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

    def average(self, gradients: list[Tensor]) -> None:
        """Make each gradient the whole batch's, which is the mean over ranks since their shares are equal."""
        self.add_up(gradients)
        torch._foreach_div_(gradients, self.count)  # pyright: ignore[reportPrivateImportUsage]

    def add_up(self, tensors: list[Tensor]) -> None:
        """Make each tensor its sum over the ranks; all are copied into one message, of float32 if they are floats."""
        if not tensors:
            return
        exact = torch.float32 if tensors[0].is_floating_point() else tensors[0].dtype
        message = torch.cat([tensor.flatten().to(exact) for tensor in tensors])
        distributed.all_reduce(message, group=self.group)
        for tensor, part in zip(tensors, message.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def agree(self, loss: Figure, gradient_norm: Figure) -> tuple[Figure, Figure]:
        """The whole batch's loss and gradient norm, the same numbers on every rank.

        The gradient is already averaged, so its norm differs between ranks only by rounding. They must agree all the
        same: all clip alike, and all or none take the step. Otherwise their weights would drift apart. Tensors stay on
        their device, and nothing waits for them.
        """
        given = (torch.as_tensor(figure, dtype=torch.float64, device=self.device) for figure in (loss, gradient_norm))
        figures = torch.stack(list(given))
        distributed.all_reduce(figures, group=self.group)
        figures = figures / self.count
        return figures.unbind() if isinstance(loss, Tensor) else tuple(figures.tolist())  # pyright: ignore[reportReturnType]

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


ALONE = Alone()
