"""AdamW over a model: weight decay on matrices only; compiled on CPU, PyTorch's fused one elsewhere."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sparsedial.kernels import native
from sparsedial.kernels.native import addresses
from sparsedial.model.transformer import Transformer
from sparsedial.training.recipe import Recipe


class CompiledAdamW(torch.optim.Optimizer):
    """AdamW in one call for all tensors of a group; equals `torch.optim.AdamW`.

    Source: Loshchilov and Hutter 2017 (arXiv 1711.05101)
    """

    def __init__(self, groups: list[dict[str, Any]], recipe: Recipe) -> None:
        constants = {"beta1": recipe.beta1, "beta2": recipe.beta2, "eps": recipe.epsilon}
        super().__init__(groups, {"lr": recipe.learning_rate, **constants})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            held = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not held:
                continue
            states = [self._state(parameter) for parameter in held]
            torch._foreach_add_([state["step"] for state in states], 1)  # pyright: ignore[reportPrivateImportUsage]
            steps = float(states[0]["step"])
            gradients = [parameter.grad.contiguous() for parameter in held]  # pyright: ignore[reportOptionalMemberAccess]
            table = torch.tensor(
                [
                    addresses(*held),
                    addresses(*gradients),
                    addresses(*(state["exp_avg"] for state in states)),
                    addresses(*(state["exp_avg_sq"] for state in states)),
                    [parameter.numel() for parameter in held],
                ]
            )
            native.module.adamw(
                *addresses(*table),
                len(held),
                group["lr"],
                group["beta1"],
                group["beta2"],
                group["eps"],
                group["weight_decay"],
                1 - group["beta1"] ** steps,
                1 - group["beta2"] ** steps,
                torch.get_num_threads(),
            )

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            state |= {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return state


def make_optimizer(model: Transformer, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if native.usable(*model.parameters()):
        return CompiledAdamW(groups, recipe)
    betas = (recipe.beta1, recipe.beta2)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas, eps=recipe.epsilon, fused=True)


def clip_gradient(parameters: list[torch.nn.Parameter], largest: float) -> float:
    """Scale the whole gradient down to a norm of at most `largest`; gives the norm before."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if native.usable(*gradients):
        table = torch.tensor([addresses(*gradients), [gradient.numel() for gradient in gradients]])
        norm = native.module.gradient_norm(*addresses(*table), len(gradients), torch.get_num_threads())
    else:
        norms = torch._foreach_norm(gradients)  # pyright: ignore[reportPrivateImportUsage]  # as clip_grad_norm_ does
        norm = float(torch.linalg.vector_norm(torch.stack(norms)))
    if math.isfinite(norm) and norm > largest:
        torch._foreach_mul_(gradients, largest / norm)  # pyright: ignore[reportPrivateImportUsage]
    return norm
