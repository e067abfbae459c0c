"""What the matrices of one layer multiply, seen while the layer computes.

B sequences, S positions, T tokens (B*S), D d_model, E experts, K chosen, H = 2F; n of the tokens that reach one expert.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sparsedial.kernels import native
from sparsedial.kernels.reference import activate
from sparsedial.model.cache import Place
from sparsedial.model.router import Routing
from sparsedial.model.transformer import Block
from sparsedial.pruning.cutting import Seen
from sparsedial.pruning.gather import visits
from sparsedial.shape.tensors import Name

Inputs = Mapping[Name, Seen]  # by matrix; matrices that multiply the same share one


class Watching(TorchFunctionMode):
    """Notes what matrices are multiplied from the left with, wherever PyTorch computes it."""

    def __init__(self, seen: Mapping[int, Seen]) -> None:
        """`seen`: by the address of the memory that the matrix lies in."""
        super().__init__()
        self._seen = seen

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function is torch.Tensor.matmul:
            seen = self._seen.get(address_of(args[1]))
            if seen is not None:
                seen.add(args[0].flatten(0, -2))
        return function(*args, **(kwargs or {}))


def address_of(tensor: Tensor) -> int:
    """Where the memory of a tensor begins; views of one memory have the same."""
    return tensor.untyped_storage().data_ptr()


class Experts:
    """Takes the place of the kernels in a sparse layer: computes its experts one by one, and notes their inputs."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs

    def __call__(
        self, layer: int, x_TD: Tensor, w_in_EDH: Tensor, w_out_EFD: Tensor, chosen_TK: Tensor, gates_TK: Tensor
    ) -> Tensor:
        """The experts' weighted outputs."""
        y_TD = torch.zeros_like(x_TD)
        for expert, token_n, choice_n in visits(chosen_TK, gates_TK):
            x_nD = x_TD[token_n]
            a_nF = activate(x_nD @ w_in_EDH[expert])
            self._inputs[Name("experts.gate", layer, expert)].add(x_nD)
            self._inputs[Name("experts.down", layer, expert)].add(a_nF)
            gate_n1 = gates_TK[token_n, choice_n, None].to(a_nF.dtype)
            y_TD = y_TD.index_add(0, token_n, a_nF @ w_out_EFD[expert] * gate_n1)
        return y_TD


def note_inputs(block: Block, x_BSD: Tensor, place: Place, views: Mapping[Name, Tensor], inputs: Inputs) -> None:
    """Let a layer read a stream, and note what its matrices multiply. `views` are the matrices in the layer's memory.

    Shapes: [B, S, D]
    """
    shared = {address_of(view): inputs[name] for name, view in views.items() if name.expert is None}
    with native.set_aside(), Watching(shared):
        block(x_BSD, place, Routing(watch=Experts(inputs)))
