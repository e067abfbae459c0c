"""One token of every sequence at a time: compiled where the model is one that the kernel knows, else the model itself.

B sequences, S positions, V vocabulary, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsedial.kernels import native
from sparsedial.kernels.bridge import array
from sparsedial.model.attention import Cache
from sparsedial.model.rotary import attention_scale
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
    plain = shape.top_p == 1 and not shape.logit_cap
    return native.usable(*model.parameters()) and plain


class _Kernel:
    """What the compiled kernel needs of a model, looked up once."""

    def __init__(self, model: Transformer, cache: Cache) -> None:
        shape = model.shape
        self.model, self.cache, sequences = model, cache, len(cache.real_BP)
        self.layers = array([_layer(block, shape.window_of(number)) for number, block in enumerate(model.blocks)])  # type: ignore[arg-type]
        self.sizes = native.module.decode_sizes(
            layers=shape.layers,
            sequences=sequences,
            length=cache.length,
            d=shape.d_model,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            c=shape.head_dim,
            words=shape.vocab_size,
            whole_norm=shape.qk_norm == "full",
            sigmoid=shape.gate == "sigmoid",
            normalize=shape.normalize_gates,
            groups=shape.expert_groups,
            kept_groups=shape.kept_groups,
            rank=shape.kv_lora_rank,
            query_rank=shape.q_lora_rank,
            unturned=shape.nope_head_dim,
            turned=shape.rope_head_dim,
            v=shape.v_head_dim,
            scaling=shape.routed_scaling,
            eps=shape.norm_eps,
            scale=attention_scale(shape),
        )
        self.threads = torch.get_num_threads()
        self.scratch = torch.empty(
            native.module.decode_scratch(sizes=self.sizes, layers=self.layers, threads=self.threads)
        )
        self.logits_BV = torch.empty(sequences, shape.vocab_size)
        self.ids_B = torch.zeros(sequences, dtype=torch.long)
        self.ids = self.ids_B.numpy()  # writing to a tensor takes several calls of PyTorch

    def has_room(self) -> bool:
        """Whether the cache and the rotary table that the model has now reach one position further."""
        return self.cache.filled < min(self.cache.length, len(self.model.cosine_SC))

    def knows(self, ids: Sequence[int]) -> bool:
        """Whether these are ids of the vocabulary, one for each sequence."""
        return len(ids) == len(self.ids_B) and min(ids) >= 0 and max(ids) < self.model.shape.vocab_size

    def step(self, ids: Sequence[int], starts_B: Tensor) -> Tensor:
        """Logits behind one new token of every sequence, always in the same place."""
        model, position = self.model, self.cache.filled - 1
        keys, values = self.cache.parts
        self.ids[:] = ids
        native.module.decode(
            sizes=self.sizes, layers=self.layers, embedding=model.embedding_VD, norm=model.norm_D,
            unembedding=model.table_VD, cosine=model.cosine_SC, sine=model.sine_SC, keys=keys, values=values,
            ids=self.ids_B, starts=starts_B, logits=self.logits_BV, scratch=self.scratch, position=position,
            threads=self.threads,
        )  # fmt: skip
        return self.logits_BV


def _layer(block: Block, window: int) -> Any:
    """A layer's weights and sizes as the kernel takes them."""
    attention, feed_forward = block.attention, block.feed_forward
    sparse = isinstance(feed_forward, SparseFeedForward)
    shared = feed_forward.shared if sparse else None
    return native.module.decode_layer(
        attention_norm=block.attention_norm_D,
        w_qkv=getattr(attention, "w_qkv_DQ", None),
        b_qkv=getattr(attention, "b_qkv_Q", None),
        q_norm=getattr(attention, "q_norm_C", None),
        k_norm=getattr(attention, "k_norm_C", None),
        w_out=attention.w_out_QD,
        query_down=getattr(attention, "w_query_down_DA", None),
        query_norm=getattr(attention, "query_norm_A", None),
        query=getattr(attention, "w_query_AQ", None),
        latent=getattr(attention, "w_latent_DR", None),
        latent_norm=getattr(attention, "latent_norm_R", None),
        up=getattr(attention, "w_up_RQ", None),
        feed_forward_norm=block.feed_forward_norm_D,
        router=feed_forward.w_router_DE if sparse else None,
        bias=feed_forward.bias_E if sparse else None,
        w_in=feed_forward.w_in_EDH if sparse else feed_forward.w_in_DH,
        w_down=feed_forward.w_out_EFD if sparse else feed_forward.w_out_FD,
        shared_in=None if shared is None else shared.w_in_DH,
        shared_down=None if shared is None else shared.w_out_FD,
        window=window,
        width=feed_forward.sizes.d_expert if sparse else len(feed_forward.w_out_FD),
        shared_width=0 if shared is None else len(shared.w_out_FD),
        experts=feed_forward.sizes.experts if sparse else 0,
        top_k=feed_forward.sizes.top_k if sparse else 0,
    )
