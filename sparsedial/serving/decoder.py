"""One token of every sequence at a time: compiled where the model is one that the kernel knows, else the model itself.

B sequences, S positions, V vocabulary, L layers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from sparsedial.kernels import native
from sparsedial.kernels.native import addresses
from sparsedial.model.attention import Cache
from sparsedial.model.rotary import attention_scale
from sparsedial.model.transformer import Block, SparseFeedForward, Transformer

LATENT = "w_query_down_DA", "query_norm_A", "w_query_AQ", "w_latent_DR", "latent_norm_R", "w_up_RQ"


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
        return self._kernel.step(ids_BS[:, 0].tolist(), self._starts_B)

    def step(self, ids: Sequence[int]) -> Tensor:
        """Read one new token of every sequence; gives what `read` gives, and takes as few calls of PyTorch as it can:
        between two passes over a model's weights their code has left the cache.
        """
        kernel = self._kernel
        if kernel is None or not kernel.has_room() or not kernel.knows(ids):
            return self.read(torch.tensor([[token] for token in ids], device=self.model.embedding_VD.device))
        self.cache.filled += 1
        return kernel.step(ids, self._starts_B)

    def _find_starts(self) -> None:
        """Where each sequence's text begins; with padding elsewhere the model decodes, since the kernel knows none."""
        real_BP = self.cache.real_BP[:, : self.cache.filled].cpu()
        self._starts_B = real_BP.int().argmax(1)
        if not (real_BP.sum(1) == real_BP.shape[1] - self._starts_B).all():
            self._kernel = None


def compiles(model: Transformer) -> bool:
    """Whether the compiled kernel decodes such a model."""
    shape = model.shape
    plain = shape.top_p == 1 and not shape.logit_cap and not shape.own_layers
    return native.usable(*model.parameters()) and plain


class _Kernel:
    """What the compiled kernel needs of a model, looked up once."""

    def __init__(self, model: Transformer, cache: Cache) -> None:
        shape = model.shape
        self.model, self.cache = model, cache
        self.table = torch.tensor([_row(block) for block in model.blocks], dtype=torch.long)  # type: ignore[arg-type]
        shared, sequences = shape.shared_experts * shape.d_expert, len(cache.real_BP)
        width = max(shape.d_ff, shape.d_expert, shared)
        sizes = (
            shape.layers, sequences, cache.length, shape.d_model, shape.heads, shape.kv_heads, shape.head_dim,
            shape.d_ff, shape.d_expert, shared, width, shape.experts, max(shape.top_k, 1), shape.expert_groups,
            shape.kept_groups, shape.vocab_size, shape.window, shape.full_layers, shape.qk_norm == "full",
            shape.gate == "sigmoid", shape.normalize_gates, shape.kv_lora_rank, shape.q_lora_rank,
            shape.nope_head_dim, shape.rope_head_dim, shape.v_head_dim,
        )  # fmt: skip
        self.sizes = torch.tensor(sizes, dtype=torch.long)
        self.threads = torch.get_num_threads()
        self.scratch = torch.empty(native.module.decode_scratch(*addresses(self.sizes), self.threads))
        self.logits_BV = torch.empty(sequences, shape.vocab_size)
        self.weights = addresses(self.table, model.embedding_VD, model.norm_D, model.table_VD)
        self.kept = addresses(*cache.parts)
        self.rest = addresses(self.logits_BV, self.scratch, self.sizes)
        self.ids = (ctypes.c_int64 * sequences)()
        self.constants = float(shape.routed_scaling), shape.norm_eps, attention_scale(shape), self.threads

    def has_room(self) -> bool:
        """Whether the cache and the rotary table that the model has now reach one position further."""
        return self.cache.filled < min(self.cache.length, len(self.model.cosine_SC))

    def knows(self, ids: Sequence[int]) -> bool:
        """Whether these are ids of the vocabulary, one for each sequence."""
        return len(ids) == len(self.ids) and min(ids) >= 0 and max(ids) < self.model.shape.vocab_size

    def step(self, ids: Sequence[int], starts_B: Tensor) -> Tensor:
        """Logits behind one new token of every sequence, always in the same place."""
        position, width = self.cache.filled - 1, self.model.cosine_SC.shape[1]
        turned = [table.data_ptr() + 4 * width * position for table in (self.model.cosine_SC, self.model.sine_SC)]
        self.ids[:] = ids
        native.module.decode(
            *self.weights, *turned, *self.kept, ctypes.addressof(self.ids), *addresses(starts_B), *self.rest, position,
            *self.constants,
        )  # fmt: skip
        return self.logits_BV


def _row(block: Block) -> list[int]:
    """A layer's weights by address, in the order of the kernel's table; 0 where it has none."""
    attention, feed_forward = block.attention, block.feed_forward
    shared = getattr(feed_forward, "shared", None)
    sparse = isinstance(feed_forward, SparseFeedForward)
    weights = [
        block.attention_norm_D,
        *(getattr(attention, name, None) for name in ("w_qkv_DQ", "b_qkv_Q", "q_norm_C", "k_norm_C", "w_out_QD")),
        block.feed_forward_norm_D,
        feed_forward.w_router_DE if sparse else None,
        feed_forward.bias_E if sparse else None,
        feed_forward.w_in_EDH if sparse else feed_forward.w_in_DH,
        feed_forward.w_out_EFD if sparse else feed_forward.w_out_FD,
        None if shared is None else shared.w_in_DH,
        None if shared is None else shared.w_out_FD,
        *(getattr(attention, name, None) for name in LATENT),
    ]
    return [address or 0 for address in addresses(*weights)]
