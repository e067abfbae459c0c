"""What a training step asks of a GPU, counted without one: `python -m benchmarks.gpu_counts`, with `triton` installed.

The step runs on fake tensors, which have a size and a type but no values, and which say that they are on a GPU. So the
code takes the way that it takes there. Counted: launches (operations that compute, and our Triton kernels), and casts
among them. An operation that would make the host wait for the device has no fake result: it raises an error that names
it. What CUDA computes in one operation and a CPU in several is counted as the several.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from sparsedial.kernels import (
    fused,
    native,
    sparse,
    triton_adamw,
    triton_descriptors,
    triton_launch,
    triton_sparse,
    triton_tiles,
)
from sparsedial.model import head
from sparsedial.model.router import same_top_k
from sparsedial.model.transformer import Transformer
from sparsedial.records.recipe import Dtype, Recipe
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape
from sparsedial.training.optimizer import make_optimizers
from sparsedial.training.step import Rates, TrainingStep

BATCH, CONTEXT = 2, 32
LADDER = Ladder(vocab_size=256, context=CONTEXT)
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")
SHAPES = {"dense": LADDER.shape(32, 0), "sparse": LADDER.shape(32, 32)}  # of two layers
LIKE: dict[str, dict[str, Any]] = {  # how others' models differ from the sparse one
    "as OLMoE": {
        "qk_norm": "full",
        "gate": "softmax",
        "normalize_gates": False,
        "routing_bias": False,
        "shared_experts": 0,
        "kv_heads": SHAPES["sparse"].heads,
    },
    "as DeepSeek-V3's router": {"expert_groups": 8, "kept_groups": 4, "routed_scaling": 2.5},
    "as top-p": {"top_p": 0.7},
}
FAMILIES = {name: replace(SHAPES["sparse"], **changes) for name, changes in LIKE.items()}
NO_LAUNCH = {"aten::detach", "aten::empty", "aten::empty_like", "aten::new_empty", "aten::empty_strided",
             "aten::new_empty_strided", "aten::_unsafe_view", "aten::lift_fresh"}  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """What one training step asked of the device."""

    launches: int
    casts: int
    kernels: int  # ours, among the launches
    expert_dtypes: tuple[str, ...]  # of activations, weights in and weights out, as the experts got them


class Operations(TorchDispatchMode):
    """Counts the operations that compute."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        if name.startswith("aten::") and not func.is_view and name not in NO_LAUNCH:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def as_on_a_gpu(launch: Callable[..., None], capability: tuple[int, int] | None = None) -> Iterator[None]:
    """CPU tensors are taken for a GPU's, and `launch` is called instead of a Triton kernel.

    With a compute capability sizes of blocks and descriptors are those of such a card; without it blocks are small.

    (Fake tensors of the kind "cuda" exist, but a CPU build of PyTorch refuses to index them.)
    """
    with ExitStack() as stack:
        tiles: list[tuple[Any, str, Any]] = [(triton_sparse, "_tiles", lambda *_: triton_tiles.SMALL)]
        if capability is not None:
            tiles = [(owner, "capability_of", lambda _: capability) for owner in (triton_tiles, triton_descriptors)]
            tiles += [(triton_sparse, "tuned_tiles", lambda _: None), (torch.Tensor, "data_ptr", lambda _: 0)]
        for owner, name, value in (
            *tiles,
            (native, "module", None),
            *((owner, "watched", lambda *_: False) for owner in (sparse, fused, head)),
            (torch.Tensor, "is_cuda", True),
            (triton_launch, "on", lambda _: nullcontext()),
            (triton_launch, "launch", launch),
            (triton_adamw, "_table", lambda *_: None),
        ):
            stack.enter_context(patch.object(owner, name, value))
        yield


def counts_of(
    shape: Shape,
    dtype: Dtype,
    with_balance: bool = False,
    top_k: int | None = None,
    launch: Callable[..., None] = lambda *_, **__: None,
    **changes: Any,
) -> Counts:
    """What one training step of a shape asks of a GPU; the step before it made the optimizer's moments.

    With `top_k` tokens visit that many experts, as in a step of a dial. `launch` is called for every Triton kernel.

    Raises: DynamicOutputShapeException, DataDependentOutputException for an operation that waits for the device.
    """
    launched: list[Any] = []
    seen: list[str] = []

    def experts(*tensors: Tensor) -> Tensor:
        seen.extend(str(tensor.dtype).removeprefix("torch.") for tensor in tensors[:3])
        return sparse.fastest(*tensors)

    def launched_one(kernel: Any, *arguments: Any, **constants: Any) -> None:
        launched.append(kernel)
        launch(kernel, *arguments, **constants)

    recipe = Recipe(learning_rate=1e-3, steps=600, batch=BATCH, context=CONTEXT, dtype=dtype, **changes)
    rates = Rates(recipe.rate(0), recipe.bias_rate(0), recipe.prediction_weight(0))
    operations = Operations()
    with (
        as_on_a_gpu(launched_one),
        patch.dict(sparse.KERNELS, auto=experts),
        FakeTensorMode(),
    ):
        model = Transformer(shape)
        step = TrainingStep(model, make_optimizers(model, recipe), recipe)
        ids_BS1 = torch.zeros(BATCH, CONTEXT + 1, dtype=torch.long)
        if top_k is not None:
            rates = replace(rates, top_k_LB=same_top_k(top_k, shape, ids_BS1.device))
        step.take(ids_BS1, rates)
        launched.clear()
        seen.clear()
        with operations:
            step.take(ids_BS1, rates, with_balance)
    return Counts(
        launches=operations.seen.total() + len(launched),
        casts=operations.seen["aten::_to_copy"],
        kernels=len(launched),
        expert_dtypes=tuple(seen[:3]),
    )


def main() -> None:
    """Print a line for each shape and type."""
    parser = argparse.ArgumentParser(description="launches and casts of a training step on a GPU")
    parser.add_argument("--json", action="store_true", help="one object, and nothing else")
    options = parser.parse_args()
    shapes = {**SHAPES, **FAMILIES}
    rows = {f"{name}, {dtype}": counts_of(shape, dtype) for name, shape in shapes.items() for dtype in DTYPES}
    if options.json:
        json.dump({name: asdict(counts) for name, counts in rows.items()}, sys.stdout)
        return
    for name, row in rows.items():
        print(f"{name:<34} {row.launches:4} launches, {row.kernels:2} of them our kernels; {row.casts:2} casts")


if __name__ == "__main__":
    main()
