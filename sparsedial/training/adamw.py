"""AdamW: compiled on a CPU, one pass over all tensors on a GPU; both equal PyTorch's.

Source: Loshchilov and Hutter 2017 (arXiv 1711.05101)
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from sparsedial.kernels import native, triton_launch
from sparsedial.records.recipe import Recipe
from sparsedial.training.light import LightOptimizer

if TYPE_CHECKING:
    from sparsedial.kernels import triton_adamw


def moments_of(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """The state of a parameter under AdamW, with PyTorch's names; zeros before its first step."""
    state = optimizer.state[parameter]
    if not state:
        state |= {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return state


@dataclass(frozen=True)
class Together:
    """Which parameters of a group have had equally many steps: they stay together, so they are sorted once."""

    counts: list[Tensor]  # of steps, by which the parameters are known again
    places: list[list[int]]  # one list, unless a parameter had its first gradient later

    @staticmethod
    def sorted(counts: list[Tensor]) -> Together:
        """The parameters with these counts, sorted."""
        by_step = defaultdict[float, list[int]](list)
        for place, steps in enumerate(torch.stack(counts).tolist()):
            by_step[steps].append(place)
        return Together(counts, list(by_step.values()))

    def of(self, counts: list[Tensor]) -> bool:
        """Whether these are its parameters; after a resume they have other counts."""
        return len(counts) == len(self.counts) and all(map(operator.is_, counts, self.counts))


class CompiledAdamW(LightOptimizer):
    """AdamW in one call for all tensors of a group; equals `torch.optim.AdamW`.

    `found_inf` and `grad_scale` are as in `OnePassAdamW`.
    """

    found_inf: Tensor | None
    grad_scale: Tensor | None

    def __init__(self, groups: list[dict[str, Any]], recipe: Recipe) -> None:
        constants = {"beta1": recipe.beta1, "beta2": recipe.beta2, "eps": recipe.epsilon}
        super().__init__(groups, {"lr": recipe.learning_rate, **constants})
        self.found_inf, self.grad_scale = None, None
        self._together: dict[int, Together] = {}  # by group

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        if self.found_inf is not None and self.found_inf:
            return
        for number, group in enumerate(self.param_groups):
            held = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not held:
                continue
            states = [moments_of(self, parameter) for parameter in held]
            counts = [state["step"] for state in states]
            torch._foreach_add_(counts, 1)  # pyright: ignore[reportPrivateImportUsage]
            known = self._together.get(number)
            if known is None or not known.of(counts):
                known = self._together[number] = Together.sorted(counts)
            for places in known.places:
                pairs = [(held[place], states[place]) for place in places]
                self._move(group, pairs, float(counts[places[0]]))

    def _move(self, group: dict[str, Any], pairs: Sequence[tuple[Tensor, dict[str, Tensor]]], steps: float) -> None:
        """One step of parameters of a group that have had equally many."""
        held, states = [parameter for parameter, _ in pairs], [state for _, state in pairs]
        gradients = [parameter.grad.contiguous() for parameter in held]  # pyright: ignore[reportOptionalMemberAccess]
        if self.grad_scale is not None:
            torch._foreach_div_(gradients, self.grad_scale)  # pyright: ignore[reportPrivateImportUsage]
        native.module.adamw(
            parameters=held,
            gradients=gradients,
            firsts=[state["exp_avg"] for state in states],
            seconds=[state["exp_avg_sq"] for state in states],
            sizes=torch.tensor([parameter.numel() for parameter in held]),
            count=len(held),
            rate=float(group["lr"]),
            beta1=group["beta1"],
            beta2=group["beta2"],
            epsilon=group["eps"],
            decay=group["weight_decay"],
            correction1=1 - group["beta1"] ** steps,
            correction2=1 - group["beta2"] ** steps,
            threads=torch.get_num_threads(),
        )


class OnePassAdamW(LightOptimizer, torch.optim.AdamW):
    """AdamW in one pass over weights, moments, gradients and the copies that products read; for a GPU.

    A parameter with a copy has its gradient there, in the copy's type. Where Triton is missing PyTorch's own AdamW
    makes the step, and defines what the pass computes; the copies are then made anew before the next forward pass.
    `found_inf` and `grad_scale` are on the device, as PyTorch's gradient scaler sets them: nothing waits for them.
    """

    copies: Mapping[Tensor, Tensor]
    found_inf: Tensor | None
    grad_scale: Tensor | None

    def __init__(self, groups: list[dict[str, Any]], recipe: Recipe) -> None:
        betas = (recipe.beta1, recipe.beta2)
        super().__init__(groups, lr=recipe.learning_rate, betas=betas, eps=recipe.epsilon, fused=True)
        self.copies, self.found_inf, self.grad_scale = {}, None, None
        self._tables = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        if triton_launch.available() and all(
            parameter.is_cuda and parameter.is_contiguous() for parameter in self.parameters
        ):
            self._step_in_one_pass()
        else:
            self._take_over()
            super().step()
            increment_version(self.parameters)  # which PyTorch's own pass leaves as it is: the copies are older now

    def fill_tables(self) -> list[Tensor]:
        """Fill the tables of a step that was captured as a graph; it reads them as long as it is replayed."""
        return [] if self._tables is None else self._tables.fill()

    def forget_tables(self) -> None:
        """Forget the tables of a step whose capture failed."""
        if self._tables is not None:
            self._tables.forget()

    @property
    def parameters(self) -> list[Tensor]:
        """Those of all groups."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _take_over(self) -> None:
        """Give each parameter the gradient of its copy, in its own type."""
        for parameter, copied in self.copies.items():
            if copied.grad is not None:
                parameter.grad, copied.grad = copied.grad.to(parameter.dtype), None

    def _step_in_one_pass(self) -> None:
        from sparsedial.kernels import triton_adamw

        if self._tables is None:
            self._tables = triton_adamw.Tables()
        launches = self._launches()
        if not launches:
            return
        steps = [row[4] for rows in launches.values() for row in rows]
        found_inf = torch.zeros_like(steps[0]) if self.found_inf is None else self.found_inf
        scale = torch.ones_like(steps[0]) if self.grad_scale is None else self.grad_scale
        torch._foreach_add_(steps, [1 - found_inf] * len(steps))  # pyright: ignore[reportPrivateImportUsage]
        for (number, *types), rows in launches.items():
            group = self.param_groups[number]
            (beta1, beta2), decay = group["betas"], group["weight_decay"]
            constants = triton_adamw.Constants(group["lr"], beta1, beta2, group["eps"], decay)
            triton_adamw.adamw(self._tables, (number, *types), rows, constants, found_inf, scale)

    def _launches(self) -> dict[tuple[int, torch.dtype, torch.dtype | None], list[triton_adamw.Row]]:
        """What one launch each takes: tensors of one group, with gradients of one type and copies of one type."""
        launches = defaultdict(list)
        for number, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                copied = self.copies.get(parameter)
                gradient = parameter.grad if copied is None or copied.grad is None else copied.grad
                if gradient is not None:
                    state, copy_type = moments_of(self, parameter), None if copied is None else copied.dtype
                    row = parameter, gradient.contiguous(), state["exp_avg"], state["exp_avg_sq"], state["step"], copied
                    launches[number, gradient.dtype, copy_type].append(row)
        return launches
