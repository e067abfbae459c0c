"""Models that compute in float32 and hold their matrices in bfloat16: half the bytes.

Norms, biases and the router are always held in float32.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sparsedial.kernels import native
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import Transformer
from sparsedial.records.answers import WeightsDtype

EXACT = ("w_router_DE", "w_shared_gate_D1")
EXACT_PARTS = ("router", "shared_gate")  # the same under their canonical names


def narrow(model: Transformer, *, values: bool = True) -> Transformer:
    """Hold a model's matrices in bfloat16, rounded from what they are; without values they are not set."""
    for name, weight in list(model.named_parameters()):
        if not _narrows(name, weight):
            continue
        owner, _, own_name = name.rpartition(".")
        rounded = weight.detach().to(torch.bfloat16) if values else torch.empty_like(weight, dtype=torch.bfloat16)
        setattr(model.get_submodule(owner), own_name, nn.Parameter(rounded, requires_grad=False))
    model.stream_dtype = torch.float32
    return model


def decodable(model: Transformer) -> bool:
    """Whether the compiled kernels take a model's weights as they are held."""
    if not is_narrow(model):
        return native.usable(*model.parameters())
    narrows = {name: _narrows(name, weight) for name, weight in model.named_parameters()}
    exact = [weight for name, weight in model.named_parameters() if not narrows[name]]
    matrices = [weight for name, weight in model.named_parameters() if narrows[name]]
    return native.usable(*exact) and all(
        weight.dtype == torch.bfloat16 and weight.is_contiguous() and weight.device.type == "cpu" for weight in matrices
    )


def is_narrow(model: Transformer) -> bool:
    """Whether a model's matrices are held in bfloat16 while it computes in float32."""
    return (model.embedding_VD.dtype, model.norm_D.dtype) == (torch.bfloat16, torch.float32)


def weights_dtype(model: Transformer) -> WeightsDtype:
    """The type of a model's matrices, for a model that computes in float32."""
    return "bfloat16" if is_narrow(model) else "float32"


def _narrows(name: str, weight: Tensor) -> bool:
    """Whether a parameter may be held in another type than float32."""
    return weight.dim() > 1 and name.rpartition(".")[2] not in EXACT


def stored_in_bfloat16(tensors: Iterable[NamedTensor]) -> bool:
    """Whether a folder has in bfloat16 all that may be held so."""
    matrices = (tensor for tensor in tensors if len(tensor.size) > 1 and tensor.name.part not in EXACT_PARTS)
    return all(tensor.dtype == torch.bfloat16 for tensor in matrices)
