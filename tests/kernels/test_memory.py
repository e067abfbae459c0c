"""A compiled kernel whose scratch cannot be had says so, before it writes anything, for all of its threads at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sparsedial.kernels import native
from sparsedial.kernels.bridge import array

pytestmark = pytest.mark.skipif(native.module is None, reason="the compiled kernels are not built")
HUGE = 2**40  # floats: more than an address space has, whatever they are multiplied by
SIZES: dict[str, dict[str, int | None]] = {
    "attention_forward": {"d": HUGE, "heads": 1, "kv_heads": 1, "c": 8},
    "attention_backward": {"d": HUGE, "heads": 1, "kv_heads": 1, "c": 8},
    "causal_forward": {"s": HUGE, "heads": 1, "kv_heads": 1, "c": 8, "width": 8, "sequences": 0, "k": None, "v": None},
    "causal_backward": {"s": HUGE, "heads": 1, "kv_heads": 1, "c": 8, "width": 8, "sequences": 0, "k": None, "v": None},
    "dense_forward": {"d": 8, "f": HUGE, "tokens": 1024},
    "dense_backward": {"d": 8, "f": HUGE},
    "experts_forward": {"d": HUGE, "f": 8, "e": 1, "k": 1, "tokens": 0},
    "experts_backward": {"d": HUGE, "f": 8, "e": 1, "k": 1, "tokens": 0},
    "sparse_forward": {"d": 8, "f": 8, "m": HUGE, "e": 2, "k": 1},
    "sparse_backward": {"d": 8, "f": HUGE, "m": 0, "e": 2, "k": 1},
    "head_forward": {"d": HUGE, "v": 8},
    "weights_product": {"tokens": 1024, "k": HUGE, "n": 16},  # few need no scratch
}
FIELDS = {"tokens": 16, "sequences": 1, "s": 16, "groups": 1, "kept_groups": 1, "learning": 1, "threads": 1}


def called(kernel: Callable[..., Any], **given: Any) -> Any:
    """A kernel with some of its arguments, and others that are 0 or no memory."""
    names = kernel.__code__.co_varnames[: kernel.__code__.co_kwonlyargcount]
    numbers = {*SCALARS, *FIELDS}
    return kernel(**{name: given.get(name, FIELDS.get(name, 0 if name in numbers else None)) for name in names})


SCALARS = (
    "tokens", "d", "f", "e", "k", "m", "n", "v", "s", "c", "heads", "kv_heads", "sequences", "width", "scale", "eps",
    "half", "sigmoid", "normalize", "ones", "scaling", "balance", "z", "top_p", "least_gate", "least_written",
)  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", SIZES)
def test_scratch_that_cannot_be_had_is_an_error(name, threads):
    given = {"saved": torch.empty(1 << 16), "target": torch.zeros(16, dtype=torch.int64), "threads": threads}
    with pytest.raises(MemoryError, match="scratch"):
        called(getattr(native.module, name), **given, **SIZES[name])


def test_few_rows_of_a_dense_layer_say_so_too():
    with pytest.raises(MemoryError):
        called(native.module.dense_forward, saved=torch.empty(1 << 16), d=8, f=HUGE)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("learning", [0, 1])
def test_so_it_is_where_the_way_through_the_experts_needs_it(threads, learning):
    """That is known once the tokens have chosen."""
    tokens, d, e, k = 16, 8, 2, 1
    x, w_router = torch.randn(tokens, d), torch.randn(d, e)
    with pytest.raises(MemoryError):
        called(
            native.module.sparse_forward,
            x=x, norm=torch.ones(d), w_router=w_router, y=torch.empty_like(x), saved=torch.empty(1 << 16),
            loss=torch.zeros(1), s=tokens, d=d, f=HUGE, e=e, k=k, learning=learning, eps=1e-5, scaling=1.0,
            threads=threads,
        )  # fmt: skip


def test_muon_says_so_too():
    place = native.module.muon_place(parameter=0, first=0, height=2**24, width=2**24, length=2**24)
    with pytest.raises(MemoryError):
        native.module.muon(
            parameters=[], gradients=[], momenta=[], places=array([place]), count=1, rate=0.0, decay=0.0, momentum=0.0,
            scale=0.0, first=0.0, third=0.0, fifth=0.0, iterations=0, threads=1,
        )  # fmt: skip
