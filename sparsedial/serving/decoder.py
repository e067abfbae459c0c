"""One token of every sequence at a time: compiled where the model is one that the kernel knows, else the model itself.

B sequences, S positions, V vocabulary, L layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsedial.kernels import native
from sparsedial.kernels.native import addresses
from sparsedial.model.attention import Cache, GroupedAttention
from sparsedial.model.transformer import Block, SparseFeedForward, Transformer


class Decoder:
    """A model with the cache of some sequences that it reads together.

    Prompts of several lengths are padded on their left; `real_BS` is False there.
    """

    def __init__(self, model: Transformer, sequences: int, length: int) -> None:
        self.model = model
        table_VD = model.table_VD
        self.cache = Cache(model.shape, sequences, length, table_VD.device, table_VD.dtype)
        self._starts_B = torch.zeros(sequences, dtype=torch.long)
        self._kernel = _Kernel(model, self.cache) if compiles(model) else None

    @torch.no_grad()
    def read(self, ids_BS: Tensor, real_BS: Tensor | None = None) -> Tensor:
        """Read new tokens; gives the logits behind the last one, which the next call may overwrite.

        Shapes: ids [B, S] to [B, V]
        """
        if self._kernel is None or ids_BS.shape[1] > 1 or real_BS is not None:
            logits_BSV = self.model(ids_BS, cache=self.cache, real_BS=real_BS)
            if real_BS is not None:
                self._find_starts()
            return logits_BSV[:, -1]
        self.model.place(ids_BS, self.cache)  # checks the ids and moves the cache on
        return self._kernel.step(ids_BS[:, 0].long().contiguous(), self._starts_B)

    def _find_starts(self) -> None:
        """Where each sequence's text begins; with padding elsewhere the model decodes, since the kernel knows none."""
        real_BP = self.cache.real_BP[:, : self.cache.filled].cpu()
        self._starts_B = real_BP.int().argmax(1)
        if not (real_BP.sum(1) == real_BP.shape[1] - self._starts_B).all():
            self._kernel = None


def compiles(model: Transformer) -> bool:
    """Whether the compiled kernel decodes such a model."""
    shape = model.shape
    return (
        native.usable(*model.parameters()) and not shape.latent_attention and shape.top_p == 1 and not shape.logit_cap
    )


class _Kernel:
    """What the compiled kernel needs of a model, looked up once."""

    def __init__(self, model: Transformer, cache: Cache) -> None:
        shape = model.shape
        self.model, self.cache = model, cache
        self.table = torch.tensor([_row(block) for block in model.blocks], dtype=torch.long)  # type: ignore[arg-type]
        shared = shape.shared_experts * shape.d_expert
        width = max(shape.d_ff, shape.d_expert, shared)
        sequences, length = len(cache.real_BP), cache.length
        attention = shape.d_model, shape.heads, shape.kv_heads, shape.head_dim
        self.threads = torch.get_num_threads()
        choices = max(shape.top_k, 1)
        size = native.module.decode_scratch(sequences, *attention, width, shape.experts, choices, length, self.threads)
        self.scratch = torch.empty(size)
        self.logits_BV = torch.empty(sequences, shape.vocab_size)
        self.weights = addresses(self.table, model.embedding_VD, model.norm_D, model.table_VD)
        self.kept = addresses(*cache.parts)
        self.outputs = addresses(self.logits_BV, self.scratch)
        self.sizes = (shape.layers, sequences, length)
        self.constants = (
            *attention, shape.d_ff, shape.d_expert, shared, width, shape.experts, choices, shape.expert_groups,
            shape.kept_groups, shape.vocab_size,
            shape.window, shape.full_layers, shape.qk_norm == "full", shape.gate == "sigmoid", shape.normalize_gates,
            float(shape.routed_scaling), shape.norm_eps, self.threads,
        )  # fmt: skip

    def step(self, ids_B: Tensor, starts_B: Tensor) -> Tensor:
        """Logits behind one new token of every sequence, always in the same place."""
        position = self.cache.filled - 1
        turned = addresses(self.model.cosine_SC[position], self.model.sine_SC[position])
        native.module.decode(
            *self.weights, *turned, *self.kept, *addresses(ids_B, starts_B), *self.outputs,
            *self.sizes, position, *self.constants,
        )  # fmt: skip
        return self.logits_BV


def _row(block: Block) -> list[int]:
    """A layer's weights by address, in the order of the kernel's table."""
    attention, feed_forward = block.attention, block.feed_forward
    assert isinstance(attention, GroupedAttention)
    norms = (None, None) if attention.shape.qk_norm == "none" else (attention.q_norm_C, attention.k_norm_C)
    routed: list[Any] = [None, None, None, None, None, None]
    if isinstance(feed_forward, SparseFeedForward):
        shared = feed_forward.shared
        routed = [
            feed_forward.w_router_DE,
            feed_forward.bias_E,
            feed_forward.w_in_EDH,
            feed_forward.w_out_EFD,
            None if shared is None else shared.w_in_DH,
            None if shared is None else shared.w_out_FD,
        ]
    else:
        routed[2:4] = feed_forward.w_in_DH, feed_forward.w_out_FD
    weights = [
        block.attention_norm_D,
        attention.w_qkv_DQ,
        attention.b_qkv_Q,
        *norms,
        attention.w_out_QD,
        block.feed_forward_norm_D,
        *routed,
    ]
    return [address or 0 for address in addresses(*weights)]
