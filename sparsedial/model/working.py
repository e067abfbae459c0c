"""The types that a model works in, by rule: products, the residual stream and the experts in a recipe's type.

Always in float32: the router, the sums of norms, softmax and the loss; and the weights that learn. Where the type is
another one, products read copies of those weights.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sparsedial.model.transformer import Transformer
from sparsedial.records.recipe import Dtype

TYPES: dict[Dtype, tuple[torch.dtype, torch.dtype]] = {  # of products, and of the stream
    "float32": (torch.float32, torch.float32),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "bfloat16_products": (torch.bfloat16, torch.float32),
}
EXACT = ("w_router_DE", "bias_E", "load_E")  # never copied: the working model has the model's own


class Working:
    """A model beside the one that learns: copies of its weights in the recipe's type, and its own router.

    In float32 it is the model that learns.
    """

    def __init__(self, model: Transformer, dtype: Dtype) -> None:
        products, stream = TYPES[dtype]
        self._learning: list[Tensor] = list(model.parameters())
        self.model = model
        if products != torch.float32:
            self.model = _twin(model, products)
            self.model.stream_dtype = stream
        pairs = zip(self._learning, self.model.parameters(), strict=True)
        self._copies: dict[Tensor, Tensor] = {weight: copied for weight, copied in pairs if weight is not copied}
        self._hooks = {
            weight: copied.register_post_accumulate_grad_hook(partial(_hand_over, weight))
            for weight, copied in self._copies.items()
        }
        self._lent: dict[Tensor, Tensor] = {}
        self._versions: dict[Tensor, int] = {}  # of lent weights, when they were last copied here

    def lend(self, weights: Iterable[Tensor]) -> dict[Tensor, Tensor]:
        """The copies of these weights, for an optimizer that takes gradients from them and writes them itself."""
        lent = {weight: self._copies[weight] for weight in weights if weight in self._copies}
        for weight in lent:
            self._hooks.pop(weight).remove()
            self._versions[weight] = weight._version
        self._lent |= lent
        return lent

    def forget_gradients(self) -> None:
        """Drop the gradients of the step before."""
        for weight in (*self._learning, *self._lent.values()):
            weight.grad = None

    @torch.no_grad()
    def renew(self) -> None:
        """Copy the weights as they are now; of the lent ones only those that PyTorch saw change.

        (An optimizer's kernel that writes the copies too leaves the version as it is.)
        """
        changed = [weight for weight in self._copies if weight._version != self._versions.get(weight)]
        if changed:
            torch._foreach_copy_([self._copies[weight] for weight in changed], changed)  # pyright: ignore[reportPrivateImportUsage]
        self._versions = {weight: weight._version for weight in self._lent}

    def backward(self, loss: Tensor) -> list[Tensor]:
        """The gradients of the weights that learn, of a loss of the working model.

        Those of lent copies are in the copies' type, the others in the weights'.
        """
        loss.backward()
        return [holder.grad for holder in self.holders if holder.grad is not None]

    @contextlib.contextmanager
    def listening(self, arrived: Callable[[int], None]) -> Generator[None]:
        """Within it `arrived` gets the number of each weight whose gradient a backward pass has just added up."""
        hooks = [
            tensor.register_post_accumulate_grad_hook(lambda _, number=number: arrived(number))
            for number, tensor in enumerate(self.model.parameters())
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def holders(self) -> list[Tensor]:
        """What has the gradient of each weight that learns: the weight, or its lent copy."""
        return [self._lent.get(weight, weight) for weight in self._learning]


def _hand_over(weight: Tensor, copied: Tensor) -> None:
    """Give a copy's gradient to its weight, in the weight's type; so only one gradient at a time exists twice."""
    assert copied.grad is not None
    weight.grad, copied.grad = copied.grad.to(weight.dtype), None


def _twin(model: Transformer, dtype: torch.dtype) -> Transformer:
    """A model with copies of all weights and tables but the `EXACT` ones, which both models share."""
    tensors: dict[int, Any] = {id(model.shape): model.shape}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name.rpartition(".")[2] in EXACT:
            tensors[id(tensor)] = tensor
        else:
            copied = tensor.detach().to(dtype)
            tensors[id(tensor)] = nn.Parameter(copied) if isinstance(tensor, nn.Parameter) else copied
    return copy.deepcopy(model, tensors)
