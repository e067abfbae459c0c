"""Optimizers over a model: AdamW, and Muon for its matrices; weight decay on matrices only.

M and N are the rows and columns of a matrix, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from sparsedial.kernels import native
from sparsedial.kernels.native import addresses
from sparsedial.model.transformer import Transformer
from sparsedial.training.recipe import Recipe

EMBEDDINGS = ("embedding_VD", "unembedding_VD")
NOT_FOR_MUON = (*EMBEDDINGS, "w_router_DE")
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # fast, not exact: singular values end up in 0.7 to 1.2
NEWTON_SCHULZ_STEPS = 5
MUON_MOMENTUM = 0.95
MUON_SCALE = 0.2  # root mean square of an update times this over the learning rate: AdamW's, so that rates carry over


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


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is brought to singular values near one; each expert's matrix by itself.

    Matrices that lie side by side in one parameter (queries, keys and values; gate and up) are taken apart first.

    Source: Jordan et al. 2024 (kellerjordan.github.io/posts/muon); scale and weight decay, Liu et al. 2025
    (arXiv 2502.16982)
    """

    def __init__(self, groups: list[dict[str, Any]], recipe: Recipe) -> None:
        super().__init__(groups, {"lr": recipe.learning_rate})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        threads = torch.get_num_threads()
        for group in self.param_groups:
            pairs = zip(group["params"], group["widths"], strict=True)
            held = [(parameter, widths) for parameter, widths in pairs if parameter.grad is not None]
            places, parallel = _places(tuple((parameter.shape, widths) for parameter, widths in held))
            if parallel >= threads and native.usable(*(parameter for parameter, _ in held)):
                self._step_compiled([parameter for parameter, _ in held], places, group, threads)
            else:  # each matrix by all threads
                for parameter, widths in held:
                    self._step_one(parameter, widths, group)

    def _step_compiled(self, held: list[Tensor], places: Tensor, group: dict[str, Any], threads: int) -> None:
        gradients = [parameter.grad.contiguous() for parameter in held]  # pyright: ignore[reportOptionalMemberAccess]
        momenta = [self._momentum(parameter) for parameter in held]
        table = torch.tensor([addresses(*held), addresses(*gradients), addresses(*momenta)])
        native.module.muon(
            *addresses(*table, places),
            len(places),
            group["lr"],
            group["weight_decay"],
            MUON_MOMENTUM,
            MUON_SCALE,
            *NEWTON_SCHULZ,
            NEWTON_SCHULZ_STEPS,
            threads,
        )

    def _step_one(self, parameter: Tensor, widths: tuple[int, ...], group: dict[str, Any]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        momentum = self._momentum(parameter).lerp_(gradient, 1 - MUON_MOMENTUM)
        ahead = gradient.lerp(momentum, MUON_MOMENTUM)  # Nesterov's
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        for part, moved in zip(ahead.split(widths, -1), parameter.split(widths, -1), strict=True):
            scale = MUON_SCALE * math.sqrt(max(part.shape[-2:]))
            moved.sub_(orthogonal(part), alpha=group["lr"] * scale)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]


@cache
def _places(parameters: tuple[tuple[torch.Size, tuple[int, ...]], ...]) -> tuple[Tensor, float]:
    """Where the matrices of parameters lie, the costliest first, and how many threads that one leaves work for.

    A row tells a matrix's parameter, its first value there, its rows and columns, and the length of a parameter's row.
    """
    places: list[list[int]] = []
    for index, (shape, widths) in enumerate(parameters):
        rows, length = shape[-2:]
        for expert in range(math.prod(shape[:-2])):
            firsts = accumulate(widths, initial=expert * rows * length)
            places += [[index, first, rows, width, length] for first, width in zip(firsts, widths, strict=False)]
    places.sort(key=_cost, reverse=True)
    parallel = sum(map(_cost, places)) / _cost(places[0]) if places else 0.0
    return torch.tensor(places, dtype=torch.int64), parallel


def _cost(place: list[int]) -> int:
    """Multiplications of a matrix's iteration, but for a factor."""
    rows, columns = place[2:4]
    return rows * columns * min(rows, columns)


def orthogonal(x_MN: Tensor) -> Tensor:
    """A matrix with the singular vectors of `x` and singular values near one, by Newton and Schulz's iteration.

    Shapes: [..., M, N] to [..., M, N]
    """
    wide = x_MN.mT if x_MN.shape[-2] > x_MN.shape[-1] else x_MN
    y = wide.bfloat16() if wide.is_cuda else wide
    y = y / (y.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = y @ y.mT
        y = a * y + (b * square + c * square @ square) @ y
    return (y.mT if wide is not x_MN else y).to(x_MN.dtype)


class Together:
    """Two optimizers that step as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> _States:
        """What both keep of a parameter."""
        return _States(self.parts)

    def step(self) -> None:
        """One step of each."""
        for part in self.parts:
            part.step()


class _States:
    """The states of several optimizers by parameter."""

    def __init__(self, parts: tuple[torch.optim.Optimizer, ...]) -> None:
        self._parts = parts

    def items(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Each parameter that has a state."""
        for part in self._parts:
            yield from part.state.items()

    def __setitem__(self, parameter: Tensor, state: dict[str, Tensor]) -> None:
        for part in self._parts:
            if any(parameter is held for group in part.param_groups for held in group["params"]):
                part.state[parameter] = state


Optimizer = torch.optim.Optimizer | Together


def make_optimizer(model: Transformer, recipe: Recipe) -> Optimizer:
    """AdamW, or Muon for the matrices and AdamW for the rest; compiled on CPU, PyTorch's fused one elsewhere.

    Each group's `scale` is what the recipe's rate is multiplied by.
    """
    muon = recipe.optimizer == "muon"
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        leaf = name.rpartition(".")[2]
        matrix = parameter.dim() >= 2
        hidden = matrix and leaf not in EMBEDDINGS
        scale = recipe.width_base / model.shape.d_model if recipe.width_base and hidden else 1.0
        by_muon = muon and matrix and leaf not in NOT_FOR_MUON
        key = (by_muon, matrix, scale**0.5 if by_muon else scale)  # MUON_SCALE already falls with the root
        settings = {"params": [], "widths": [], "weight_decay": recipe.weight_decay if matrix else 0.0, "scale": key[2]}
        group = groups.setdefault(key, settings)
        group["params"].append(parameter)
        group["widths"].append(_widths(leaf, parameter, model))
    by_muon = [group for key, group in groups.items() if key[0]]
    rest = [_without_widths(group) for key, group in groups.items() if not key[0]]
    adamw = _adamw(rest, model, recipe)
    return Together(Muon(by_muon, recipe), adamw) if by_muon else adamw


def _without_widths(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "widths"}


def _widths(leaf: str, parameter: Tensor, model: Transformer) -> tuple[int, ...]:
    """Columns of the matrices that lie side by side in a parameter."""
    shape, columns = model.shape, parameter.shape[-1]
    if leaf == "w_qkv_DQ":
        return tuple(count * shape.head_dim for count in (shape.heads, shape.kv_heads, shape.kv_heads))
    if leaf in ("w_in_DH", "w_in_EDH"):
        return columns // 2, columns // 2
    return (columns,)


def _adamw(groups: list[dict[str, Any]], model: Transformer, recipe: Recipe) -> torch.optim.Optimizer:
    if native.usable(*model.parameters()):
        return CompiledAdamW(groups, recipe)
    betas = (recipe.beta1, recipe.beta2)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas, eps=recipe.epsilon, fused=True)


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


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
