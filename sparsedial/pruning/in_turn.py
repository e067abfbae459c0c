"""A calibration text on its way through a model, layer after layer, with the stream of all windows between two layers.

What each layer showed and the stream behind it are kept on a shelf, so a stopped calibration goes on from the last
layer that was done. Of a model whose layers lie in files one is in memory at a time, and is read once.

B sequences, S positions, D d_model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from sparsedial.evaluation.scorer import Scorer, logits_in_pieces, windows_at_once
from sparsedial.machine.hardware import give_back_memory
from sparsedial.model.cache import Place
from sparsedial.model.far import held, is_far
from sparsedial.model.transformer import Block, Transformer
from sparsedial.pruning.quality import require_known
from sparsedial.pruning.shelf import Group, Shelf

FIRST, END = "first", "end"  # groups of what the first windows show, and of what is found behind the last layer
Tensors = Mapping[str, Tensor]
Forward = Callable[[Tensor, Place], Tensor]  # [B, S, D] to [B, S, D]


class Passage:
    """The way of some windows through a model."""

    def __init__(self, model: Transformer, windows_WS1: Tensor, shelf: Shelf | None = None) -> None:
        """The shelf holds nothing but what this passage has found before. Shapes: [W, S+1]"""
        self.model, self._shelf = model, Shelf() if shelf is None else shelf
        self.device = model.embedding_VD.device
        self.batches = [ids.to(self.device) for ids in windows_WS1.split(windows_at_once(windows_WS1.shape[1]))]
        self.tokens = windows_WS1[:, 1:].numel()

    def turns(self, *, changing: bool = False) -> Iterator[Turn]:
        """Each layer's turn, also of those that were done before. With `changing` the weights of the turn's layer may
        be changed, and the model's stay as they are.
        """
        done, layers = self._done(), len(self.model.blocks)
        self._shelf.heard(done, layers)
        for number, block in enumerate(self.model.blocks):
            assert isinstance(block, Block)
            if number < done:
                yield Turn(self, number, block, done=True)
                continue
            self._shelf.drop(f"layer-{number}")  # its stream is not whole, and it may have been changed
            with held(block):
                yield Turn(self, number, copy.deepcopy(block) if changing and not is_far(block) else block, done=False)
            self.found(f"layer-{number}", dict)
            self._drop(number)
            give_back_memory()
            self._shelf.heard(number + 1, layers)

    def _done(self) -> int:
        """How many layers were done before: what they showed is there, and the stream behind the last of them."""
        layers = len(self.model.blocks)
        known = next((number for number in range(layers) if self._shelf.get(f"layer-{number}") is None), layers)
        if known == layers and self._shelf.get(END) is not None:
            return layers
        return next((number for number in range(known, 0, -1) if self._has_stream(number)), 0)

    def _has_stream(self, number: int) -> bool:
        return all(self._shelf.get(_stream(number, at)) is not None for at in range(len(self.batches)))

    def inputs(self, number: int) -> Iterator[tuple[Tensor, Place]]:
        """The stream before a layer, batch by batch. Shapes: each [B, S, D]"""
        for at, ids_BS1 in enumerate(self.batches):
            ids_BS = ids_BS1[:, :-1]
            if number == 0:
                x_BSD = functional.embedding(ids_BS, self.model.embedding_VD)
            else:
                kept = self._shelf.get(_stream(number, at))
                assert kept is not None
                x_BSD = kept["x"]().to(self.device)
            yield x_BSD, self.model.place(ids_BS)

    def put_stream(self, number: int, at: int, x_BSD: Tensor) -> None:
        """Keep a batch of the stream before a layer. Shapes: [B, S, D]"""
        self._shelf.put(_stream(number, at), {"x": x_BSD})

    def _drop(self, number: int) -> None:
        for at in range(len(self.batches)):
            self._shelf.drop(_stream(number, at))

    def found(self, name: str, make: Callable[[], Tensors]) -> Group:
        """What was found before, or is found now and kept."""
        kept = self._shelf.get(name)
        return self._shelf.put(name, make()) if kept is None else kept

    def last(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The stream behind the last layer, with its windows, batch by batch. Shapes: each [B, S, D] and [B, S+1]"""
        streams = (x_BSD for x_BSD, _ in self.inputs(len(self.model.blocks)))
        return zip(streams, self.batches, strict=True)

    def losses(self, look: Callable[[Tensor, Tensor], None] = lambda x_BSD, ids_BS1: None) -> Tensor:
        """The loss of each window, nats, while `look` gets what `last` gives. Shapes: to [W], float64"""
        found: list[Tensor] = []
        for x_BSD, ids_BS1 in self.last():
            pieces = logits_in_pieces(self.model, x_BSD, ids_BS1[:, 1:].flatten())
            nats_T = torch.cat([functional.cross_entropy(*piece, reduction="none").double() for piece in pieces])
            found.append(nats_T.view(len(ids_BS1), -1).sum(1).cpu())
            look(x_BSD, ids_BS1)
        return torch.cat(found)

    def loss(self, look: Callable[[Tensor, Tensor], None] = lambda x_BSD, ids_BS1: None) -> Tensor:
        """The loss of all windows, nats per token, while `look` gets what `last` gives."""
        return self.losses(look).sum() / self.tokens

    def end(self, make: Callable[[], Tensors] = dict) -> Group:
        """What was found behind the last layer before, or is found now. Its stream is dropped then."""
        group = self.found(END, make)
        self._drop(len(self.model.blocks))
        return group


class Turn:
    """A layer's turn: what is found in it, and the stream that it passes on, in this order or the other."""

    def __init__(self, passage: Passage, number: int, block: Block, *, done: bool) -> None:
        self._passage, self._done = passage, done
        self.number, self.block = number, block

    @property
    def inputs(self) -> Iterator[tuple[Tensor, Place]]:
        """The stream before the layer, batch by batch. Shapes: each [B, S, D]"""
        return self._passage.inputs(self.number)

    def found(self, make: Callable[[], Tensors]) -> Group:
        """What was found in this layer before, or is found now."""
        return self._passage.found(f"layer-{self.number}", make)

    def pass_on(self, forward: Forward) -> None:
        """Let the layer compute the stream for the next one, unless that was done before."""
        if self._done:
            return
        for at, (x_BSD, place) in enumerate(self.inputs):
            self._passage.put_stream(self.number + 1, at, forward(x_BSD, place))


def _stream(number: int, at: int) -> str:
    return f"stream-{number}-{at}"


def require_text_is_known(model: Transformer, windows_WS1: Tensor, shelf: Shelf) -> None:
    """Check the loss of the first windows of a calibration text. Shapes: [W, S+1]

    Raises: UserError where it is above that of a uniform guess.
    """
    if shelf.get(FIRST) is None:
        first_WS1 = windows_WS1[: windows_at_once(windows_WS1.shape[1])]
        loss = Scorer(model).loss(first_WS1) / first_WS1[:, 1:].numel()
        require_known(loss, model.shape)
        shelf.put(FIRST, {"loss": torch.tensor(loss)})
