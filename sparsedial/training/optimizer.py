"""Optimizers over a model: AdamW, and Muon for its matrices; weight decay on matrices only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsedial.kernels import native
from sparsedial.model.transformer import Transformer
from sparsedial.records.recipe import Recipe
from sparsedial.training.adamw import CompiledAdamW, OnePassAdamW
from sparsedial.training.muon import Muon
from sparsedial.training.muon_matrices import EMBEDDINGS, by_muon, widths_of
from sparsedial.training.owners import owned_by, owners
from sparsedial.training.ranks import ALONE, Alone, Ranks


def make_optimizers(model: Transformer, recipe: Recipe, ranks: Alone | Ranks = ALONE) -> list[torch.optim.Optimizer]:
    """AdamW, or Muon for the matrices and AdamW for the rest; of several ranks each moves what it owns alone.

    Each group's `scale` multiplies the recipe's rate. Besides its parameters a group holds only what PyTorch's
    distributed checkpoint can store.
    """
    own = owned_by(ranks.index, owners(model, recipe, ranks.count))
    groups: dict[tuple[bool, bool, float], dict[str, Any]] = {}
    widths: dict[Tensor, tuple[int, ...]] = {}
    for number, (name, parameter) in enumerate(model.named_parameters()):
        leaf = name.rpartition(".")[2]
        matrix = parameter.dim() >= 2
        hidden = matrix and leaf not in EMBEDDINGS
        scale = recipe.width_base / model.shape.d_model if recipe.width_base and hidden else 1.0
        muon = by_muon(name, parameter, recipe)
        key = (muon, matrix, scale**0.5 if muon else scale)  # MUON_SCALE already falls with the root of the width
        settings = {"params": [], "weight_decay": recipe.weight_decay if matrix else 0.0, "scale": key[2]}
        params = groups.setdefault(key, settings)["params"]  # all ranks have all groups, some without parameters
        if number in own:
            params.append(own[number].of(parameter))
            if muon:
                widths[params[-1]] = widths_of(name, parameter, model.shape)
    matrices = [group for key, group in groups.items() if key[0]]
    adamw = _adamw([group for key, group in groups.items() if not key[0]], model, recipe)
    return [Muon(matrices, widths, recipe), adamw] if matrices else [adamw]


def _adamw(groups: list[dict[str, Any]], model: Transformer, recipe: Recipe) -> torch.optim.Optimizer:
    if native.usable(*model.parameters()):
        return CompiledAdamW(groups, recipe)
    return OnePassAdamW(groups, recipe)


def hold_zeros(model: Transformer, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Let weights of the layers' matrices that are zero now be zero after every step."""
    matrices = [parameter for parameter in model.blocks.parameters() if parameter.dim() >= 2]
    held = [(matrix, matrix.detach() != 0) for matrix in matrices]

    @torch.no_grad()
    def zero(*given: Any) -> None:
        for matrix, stays in held:
            matrix.mul_(stays)

    optimizers[-1].register_step_post_hook(zero)


def set_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float | Tensor) -> None:
    """Set the learning rate of the next step: a number, or on a GPU one that lies there."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]


def gradient_norm(gradients: list[Tensor]) -> float:
    """The norm of the whole gradient."""
    if native.usable(*gradients):
        sizes = torch.tensor([gradient.numel() for gradient in gradients])
        return native.module.gradient_norm(
            gradients=gradients, sizes=sizes, count=len(gradients), threads=torch.get_num_threads()
        )
    return float(norm_on_device(gradients))


def norm_on_device(gradients: list[Tensor]) -> Tensor:
    """The same as a tensor of the gradients' device, for which nothing waits."""
    if not gradients:  # of a rank that owns nothing
        return torch.zeros(())
    norms: list[Tensor] = []
    for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
        alike = [gradient for gradient in gradients if gradient.dtype == dtype]
        norms += torch._foreach_norm(alike, 2, torch.float32)  # pyright: ignore[reportPrivateImportUsage]  # as clip_grad_norm_ does
    return torch.linalg.vector_norm(torch.stack(norms))


def clip_gradient(gradients: list[Tensor], norm: float, largest: float) -> None:
    """Scale the whole gradient, whose norm is `norm`, down to one of at most `largest`."""
    if norm > largest and gradients:
        torch._foreach_mul_(gradients, largest / norm)  # pyright: ignore[reportPrivateImportUsage]


def step_where_finite(optimizers: Sequence[torch.optim.Optimizer], finite: Tensor, gradient_scale: Tensor) -> None:
    """One step of every optimizer with its gradients divided by a scale; where `finite` is false, nothing changes.

    Both are tensors of the device, so nothing waits.
    """
    for optimizer in optimizers:
        optimizer.found_inf, optimizer.grad_scale = (~finite).float(), gradient_scale  # pyright: ignore[reportAttributeAccessIssue]
        optimizer.step()
