"""Decoding: sequences are read into slots and continue one token at a time, with the compiled kernel where it has all
parts of the model, else with the model itself.

B rows of a call, each of another sequence, S positions, D d_model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sparsedial.kernels import native
from sparsedial.kernels.bridge import array
from sparsedial.model.beginnings import LEAST_SHARED, common
from sparsedial.model.cache import Cache
from sparsedial.model.gates import Threshold
from sparsedial.model.narrow import decodable, is_narrow
from sparsedial.model.rotary import attention_scale
from sparsedial.model.router import check_top_k
from sparsedial.model.transformer import Block, DenseFeedForward, Routing, SparseFeedForward, Transformer

TOKENS_AT_ONCE = 4096  # read in one call; this limits its memory
Hear = Callable[[int, Tensor], object]  # a row's number, and its stream [S, D] at its new positions
LEAST_FULL = 0.75  # rows that are read together have at least this share of the longest one's length


class Decoder:
    """A model with a cache whose slots hold sequences, each of its own length."""

    def __init__(self, model: Transformer, slots: int, length: int) -> None:
        self.model = model
        self.cache = Cache(model.shape, slots, length, model.norm_D.device, model.norm_D.dtype)
        self._kernel = _Kernel(model, self.cache) if compiles(model) else None

    @torch.no_grad()
    def read(
        self,
        ids: Sequence[Sequence[int]],
        slots: Sequence[int] | None = None,
        top_k_LB: Tensor | None = None,
        hear: Hear | None = None,
    ) -> Tensor:
        """Continue these slots, or all of them, by new ids; returns the logits after the last id of each.

        `top_k_LB` is how many experts each row's tokens visit in each layer, or [L, 1] for all rows; by default all
        that they choose. `hear` is given the stream of each row.

        Shapes: to [B, V]
        """
        lengths = [len(row) for row in ids]
        slots = self.cache.rows(len(ids), max(lengths, default=0), slots, lengths).slots  # all fit before one is read
        logits_BV = self.model.norm_D.new_empty(len(ids), self.model.shape.vocab_size)
        for rows in alike(lengths, TOKENS_AT_ONCE):
            of_rows = [ids[row] for row in rows], [slots[row] for row in rows], columns_of(rows, top_k_LB)
            logits_BV[rows], x_BSD = self._read(*of_rows)
            if hear is not None:
                for row, x_SD in zip(rows, x_BSD, strict=True):
                    hear(row, x_SD[: lengths[row]])
        return logits_BV

    def begin(self, ids: Sequence[Sequence[int]], top_k_LB: Tensor | None = None) -> Tensor:
        """Read whole sequences into all slots, what several have in common at their beginning only once.

        Returns the logits after the last id of each; `top_k_LB` as for `read`. Shapes: to [slots, V]
        """
        groups = [(rows, shared) for rows, shared in _alike_at_first(ids, top_k_LB) if shared]
        if groups:
            firsts = [rows[0] for rows, _ in groups]
            self.read([ids[rows[0]][:shared] for rows, shared in groups], firsts, columns_of(firsts, top_k_LB))
        for rows, _ in groups:
            for row in rows[1:]:
                self.cache.copy(rows[0], row)
        return self.read([row[filled:] for row, filled in zip(ids, self.cache.filled, strict=True)], None, top_k_LB)

    def _read(
        self, ids: Sequence[Sequence[int]], slots: Sequence[int], top_k_LB: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        model, lengths = self.model, [len(row) for row in ids]
        ids_BS = padded(ids, model.embedding_VD.device)
        x_BSD = model.stream(ids_BS, model.place(ids_BS, self.cache, slots, lengths), Routing(top_k_LB=top_k_LB))
        last_B1D = x_BSD[range(len(ids)), [length - 1 for length in lengths]].unsqueeze(1)
        return model.logits(last_B1D, model.norm_D).squeeze(1), x_BSD

    def step(self, ids: Sequence[int], slots: Sequence[int] | None = None, top_k_LB: Tensor | None = None) -> Tensor:
        """Read one id in each of these slots; returns what `read` does, in memory that the next step may overwrite.

        It makes as few calls of PyTorch as possible: each pass over a model's weights evicts their code from the
        caches.
        """
        slots = range(self.cache.slots) if slots is None else slots
        if self._kernel is None or not self._kernel.takes(ids, slots):
            return self.read([[token] for token in ids], slots, top_k_LB)
        if top_k_LB is not None:
            check_top_k(top_k_LB, self.model.shape, len(ids))
            top_k_LB = top_k_LB.expand(-1, len(ids)).contiguous()
        return self._kernel.step(ids, slots, top_k_LB)


def alike(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Rows in groups of similar length, the longest first; each group holds at most `most` tokens."""
    group: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        longest = lengths[group[0]] if group else 0
        if group and (lengths[row] < LEAST_FULL * longest or (len(group) + 1) * longest > most):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def columns_of(rows: Sequence[int], top_k_LB: Tensor | None) -> Tensor | None:
    """The numbers of experts of some of the rows; a single column stands for all rows."""
    if top_k_LB is None or top_k_LB.shape[1] == 1:
        return top_k_LB
    return top_k_LB[:, list(rows)]


def _alike_at_first(ids: Sequence[Sequence[int]], top_k_LB: Tensor | None) -> list[tuple[list[int], int]]:
    """Rows in groups that begin alike, and how many ids each group has in common; 0 where that is not worth a copy.

    At least the last id of every row is not among them. The rows of a group visit as many experts in each layer.
    """
    groups: list[tuple[list[int], int]] = []
    counts = [[]] * len(ids) if top_k_LB is None else top_k_LB.expand(-1, len(ids)).t().tolist()
    for row in sorted(range(len(ids)), key=lambda row: (counts[row], tuple(ids[row]))):
        rows, shared = groups[-1] if groups else ([], 0)
        alike = rows and counts[rows[0]] == counts[row]
        still = common(ids[rows[0]][:shared], ids[row][:-1]) if alike else 0
        if still >= max(LEAST_SHARED, shared / 2):
            groups[-1] = [*rows, row], still
        else:
            groups.append(([row], len(ids[row]) - 1))
    return [(rows, shared if len(rows) > 1 else 0) for rows, shared in groups]


def padded(ids: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Rows of ids in one tensor; shorter ones are padded with their first id. Shapes: to [B, S]"""
    longest = max(map(len, ids))
    return torch.tensor([[*row, *[row[0]] * (longest - len(row))] for row in ids], device=device)


def compiles(model: Transformer) -> bool:
    """Whether the compiled kernel decodes such a model."""
    return decodable(model) and not model.shape.logit_cap


def prepare(model: Transformer) -> Transformer:
    """Make what decoding reads beside a model's weights: the first decoder would, and an answer wait for it."""
    if compiles(model):
        for block in model.blocks:
            assert isinstance(block, Block)
            _threshold(block)
    return model


class _Kernel:
    """What the compiled kernel needs of a model and its cache, looked up once."""

    def __init__(self, model: Transformer, cache: Cache) -> None:
        shape = model.shape
        self.model, self.cache = model, cache
        self.layers = array([_layer(block, shape.window_of(number)) for number, block in enumerate(model.blocks)])  # type: ignore[arg-type]
        self.sizes = native.module.decode_sizes(
            layers=shape.layers,
            slots=cache.slots,
            length=cache.length,
            d=shape.d_model,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            c=shape.head_dim,
            words=shape.vocab_size,
            whole_norm=shape.qk_norm == "full",
            sigmoid=shape.gate == "sigmoid",
            normalize=shape.normalize_gates,
            ones=shape.gate == "ones",
            half=is_narrow(model),
            groups=shape.expert_groups,
            kept_groups=shape.kept_groups,
            rank=shape.kv_lora_rank,
            query_rank=shape.q_lora_rank,
            unrotated=shape.nope_head_dim,
            rotated=shape.rope_head_dim,
            v=shape.v_head_dim,
            scaling=shape.routed_scaling,
            top_p=shape.top_p,
            eps=shape.norm_eps,
            scale=attention_scale(shape),
        )
        self.threads = torch.get_num_threads()
        scratch = native.module.decode_scratch(sizes=self.sizes, layers=self.layers, threads=self.threads)
        self.scratch, self.logits_BV = torch.empty(scratch), torch.empty(cache.slots, shape.vocab_size)
        self.tables = {"embedding": model.embedding_VD, "norm": model.norm_D, "unembedding": model.table_VD}
        self.rows = array([native.module.decode_row(token=0, slot=0, position=0)] * cache.slots)
        self.each_row = [self.rows[number] for number in range(cache.slots)]

    def takes(self, ids: Sequence[int], slots: Sequence[int]) -> bool:
        """Whether these are ids of the vocabulary, one for each of these slots, with room for one more position.

        That is room in the cache and in the model's current rotary table.
        """
        cache, vocabulary = self.cache, self.model.shape.vocab_size
        fit = 0 < len(ids) == len(slots) == len(set(slots)) and min(slots) >= 0 and max(slots) < cache.slots
        if not fit or min(ids) < 0 or max(ids) >= vocabulary:
            return False
        return max([cache.filled[slot] for slot in slots]) < min(cache.length, len(self.model.cosine_SC))

    def step(self, ids: Sequence[int], slots: Sequence[int], top_k_LB: Tensor | None) -> Tensor:
        """Logits after one new id in each of these slots, always in the same memory."""
        filled, model, count = self.cache.filled, self.model, len(ids)
        for row, token, slot in zip(self.each_row, ids, slots, strict=False):  # fewer than there are slots
            row.token, row.slot, row.position = token, slot, filled[slot]
            filled[slot] += 1
        keys, values = self.cache.parts
        native.module.decode(
            sizes=self.sizes, layers=self.layers, rows=self.rows, top_k=top_k_LB, count=count, cosine=model.cosine_SC,
            sine=model.sine_SC, keys=keys, values=values, logits=self.logits_BV, scratch=self.scratch,
            threads=self.threads, **self.tables,
        )  # fmt: skip
        return self.logits_BV if count == len(self.logits_BV) else self.logits_BV[:count]


def _layer(block: Block, window: int) -> Any:
    """A layer's weights and sizes as the kernel takes them."""
    attention, feed_forward = block.attention, block.feed_forward
    sparse = isinstance(feed_forward, SparseFeedForward)
    shared = feed_forward.shared if sparse else None
    threshold, up_rows_FD = _threshold(block)
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
        shared_gate=feed_forward.w_shared_gate_D1 if sparse else None,
        up_rows=up_rows_FD,
        gate_weights=getattr(threshold, "gate_F", None),
        down_norms=getattr(threshold, "norm_F", None),
        least_gate=getattr(threshold, "least_gate", 0.0),
        least_written=getattr(threshold, "least_written", 0.0),
        window=window,
        width=feed_forward.sizes.d_expert if sparse else len(feed_forward.w_out_FD),
        shared_width=0 if shared is None else len(shared.w_out_FD),
        experts=feed_forward.sizes.experts if sparse else 0,
        top_k=feed_forward.sizes.top_k if sparse else 0,
    )


def _threshold(block: Block) -> tuple[Threshold, Tensor] | tuple[None, None]:
    """Which neurons of a layer take part, and its ups by rows, where not all of them do."""
    part = block.feed_forward
    if not isinstance(part, DenseFeedForward) or part.threshold is None:
        return None, None
    return part.threshold, part.ups.rows(part.w_in_DH)
