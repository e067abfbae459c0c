"""Sections of `benchmarks.gpu` on the sparse layer, forward and backward, at published sizes: our kernels beside
PyTorch's grouped products, and beside Liger's fused mixture of experts where `liger-kernel` is installed.

T tokens, D d_model, E experts, K chosen, F d_expert, H both halves of what comes in: 2F.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_sections import Figures, Place
from sparsedial.kernels import triton_launch
from sparsedial.kernels.sparse import sparse_feed_forward
from sparsedial.machine.hardware import usable_cores

LAYERS = {"olmoe": (2048, 64, 8, 1024), "deepseek": (7168, 256, 8, 2048)}  # D, E, K, F
TOKENS = 16_384
Forward = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]  # of x, w_in, w_out, chosen, gates


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer's sizes and random inputs."""

    name: str
    leaves: tuple[Tensor, ...]  # x [T, D], w_in [E, D, H], w_out [E, F, D], gates [T, K]
    chosen_TK: Tensor
    slope_TD: Tensor
    flops: float  # forward and backward

    def learn(self, forward: Forward) -> None:
        """Forward and backward."""
        x_TD, w_in, w_out, gates_TK = self.leaves
        torch.autograd.grad(forward(x_TD, w_in, w_out, self.chosen_TK, gates_TK), self.leaves, self.slope_TD)

    def as_liger_has_it(self) -> Layer:
        """The same layer with weights by output, w_in [E, H, D] and w_out [E, D, F]."""
        x_TD, *weights, gates_TK = self.leaves
        turned = [weight.detach().transpose(1, 2).contiguous().requires_grad_() for weight in weights]
        chosen_TK = self.chosen_TK.to(torch.int32)
        return Layer(self.name, (x_TD, *turned, gates_TK), chosen_TK, self.slope_TD, self.flops)


def layers(place: Place) -> Iterator[Layer]:
    """One after the other, since the larger one fills much of a card."""
    for name, (d_model, experts, top_k, width) in ({"toy": (32, 8, 2, 16)} if place.quick else LAYERS).items():
        tokens = 64 if place.quick else TOKENS
        leaves = tuple(
            tensor.requires_grad_()
            for tensor in (
                place.random(tokens, d_model),
                place.random(experts, d_model, 2 * width, scale=d_model**-0.5),
                place.random(experts, width, d_model, scale=width**-0.5),
                torch.rand(tokens, top_k, device=place.device),
            )
        )
        chosen_TK = torch.rand(tokens, experts, device=place.device).topk(top_k, dim=1).indices
        flops = 3 * 2 * 3 * d_model * width * tokens * top_k  # three products, forward and twice that backward
        yield Layer(name, leaves, chosen_TK, place.random(tokens, d_model), flops)


def ours(place: Place) -> tuple[str, Forward]:
    """Our kernel's name here, and its forward pass."""
    name = "triton" if place.device == "cuda" else "compiled"
    return name, partial(by, name)


def by(kernel: str, x_TD: Tensor, w_in: Tensor, w_out: Tensor, chosen_TK: Tensor, gates_TK: Tensor) -> Tensor:
    """The layer by one of our kernels."""
    return sparse_feed_forward(x_TD, w_in, w_out, chosen_TK, gates_TK, kernel)


def layer(place: Place) -> Figures:
    """Our kernels and PyTorch's grouped products in turn; how far their outputs are apart by norm."""
    name, forward = ours(place)
    forwards: dict[str, Forward] = {name: forward, "torch_grouped": partial(by, "torch_grouped")}
    for each in layers(place):
        if place.device == "cuda":
            with triton_launch.compiled_ahead(usable_cores()):
                each.learn(forward)
        seconds = place.seconds({kernel: partial(each.learn, forwards[kernel]) for kernel in forwards}, 0.5)
        for kernel, spent in seconds.items():
            yield f"{each.name}_{kernel}_tflops", each.flops / spent / 1e12
        yield f"{each.name}_times_grouped", seconds["torch_grouped"] / seconds[name]
        yield f"{each.name}_differs", difference(each, forward, each, forwards["torch_grouped"])


def liger(place: Place) -> Figures:
    """Our kernels and Liger's in turn, after its tuning; how far its outputs are from ours by norm."""
    installed = importlib.util.find_spec("liger_kernel") is not None
    yield "installed", int(installed)
    if not installed:
        return
    function: Any = importlib.import_module("liger_kernel.ops.fused_moe").LigerFusedMoEFunction
    name, forward = ours(place)

    def of_liger(x_TD: Tensor, w_in: Tensor, w_out: Tensor, chosen_TK: Tensor, gates_TK: Tensor) -> Tensor:
        return function.apply(x_TD, w_in, w_out, chosen_TK, gates_TK)

    for each in layers(place):
        turned, began = each.as_liger_has_it(), time.perf_counter()
        turned.learn(of_liger)
        place.wait()
        yield f"{each.name}_tuning_seconds", time.perf_counter() - began
        yield f"{each.name}_differs", difference(each, forward, turned, of_liger)
        seconds = place.seconds({name: partial(each.learn, forward), "liger": partial(turned.learn, of_liger)}, 0.5)
        for kernel, spent in seconds.items():
            yield f"{each.name}_{kernel}_tflops", each.flops / spent / 1e12
        yield f"{each.name}_times_liger", seconds["liger"] / seconds[name]


@torch.no_grad()
def difference(one: Layer, forward: Forward, other: Layer, of_other: Forward) -> float:
    """The norm of the difference of both outputs over that of the first."""
    outputs = []
    for each, go in ((one, forward), (other, of_other)):
        x_TD, w_in, w_out, gates_TK = each.leaves
        outputs.append(go(x_TD, w_in, w_out, each.chosen_TK, gates_TK).float())
    return float((outputs[0] - outputs[1]).norm() / outputs[0].norm())
