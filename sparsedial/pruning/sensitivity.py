"""How much the loss minds what is missing behind a layer, by its direction.

B sequences, S positions, D d_model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from sparsedial.model.router import Routing
from sparsedial.model.transformer import Transformer

SENSED_TOKENS = 2048  # at most
SENSED_CONTEXT = 512  # at most: all activations of a window are in memory
EVEN = 0.1  # of the result is the same for all directions, since few tokens show many of them


@torch.enable_grad()
def sensitivities(model: Transformer, windows_WS1: Tensor) -> Tensor:
    """By layer a matrix: half the squared length of an error times it is about the growth of the loss, nats per token.

    The root of the mean outer product of the loss's gradients by the stream behind the layer, on the first tokens of
    evenly spread windows.

    Shapes: [W, S+1] to [L, D, D]
    Source: the empirical Fisher matrix, which optimal brain damage takes for the second derivative
    """
    windows = max(1, SENSED_TOKENS // min(windows_WS1.shape[1] - 1, SENSED_CONTEXT))
    some_WS1 = windows_WS1[:: -(-len(windows_WS1) // windows), : SENSED_CONTEXT + 1]
    with _without_gradients_of_weights(model):
        sums_LDD = sum((_outer_products(model, ids_1S1) for ids_1S1 in some_WS1.split(1)), torch.zeros(()))
    return torch.stack([_root(sum_DD / some_WS1[:, 1:].numel()) for sum_DD in sums_LDD])


def _outer_products(model: Transformer, ids_BS1: Tensor) -> Tensor:
    """The sum over tokens, by layer. Shapes: to [L, D, D]"""
    ids_BS = ids_BS1[:, :-1]
    x_BSD, place = functional.embedding(ids_BS, model.embedding_VD).requires_grad_(), model.place(ids_BS)
    streams: list[Tensor] = []
    for block in model.blocks:
        x_BSD = block(x_BSD, place, Routing())
        streams.append(x_BSD)
    logits_TV = model.logits(x_BSD, model.norm_D).flatten(0, 1).float()
    loss = functional.cross_entropy(logits_TV, ids_BS1[:, 1:].flatten(), reduction="sum")
    gradients = [gradient.flatten(0, 1) for gradient in torch.autograd.grad(loss, streams)]
    return torch.stack([gradient_TD.t() @ gradient_TD for gradient_TD in gradients])


def _root(products_DD: Tensor) -> Tensor:
    even_DD = torch.eye(len(products_DD)) * products_DD.diagonal().mean()
    values_D, vectors_DD = torch.linalg.eigh((1 - EVEN) * products_DD + EVEN * even_DD)
    return (vectors_DD * values_D.clamp(min=0).sqrt()) @ vectors_DD.t()


@contextlib.contextmanager
def _without_gradients_of_weights(model: Transformer) -> Iterator[None]:
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
