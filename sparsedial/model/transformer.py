"""The model, top to bottom: a decoder with rotary positions, grouped or latent attention, SwiGLU, dense or sparse.

B sequences, S positions, T tokens (B*S), D d_model, E experts, K chosen, F width of an expert or dense layer,
V vocabulary, L layers.
Weights multiply from the right (x @ w), in the order of the axes in their names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsedial.errors import UserError
from sparsedial.kernels import layers, native
from sparsedial.kernels.fused import activate, dense_layer, norm_beside, rms_norm
from sparsedial.kernels.narrow import product, widened
from sparsedial.kernels.sparse import sparse_feed_forward
from sparsedial.model.attention import make_attention
from sparsedial.model.cache import Cache, Place
from sparsedial.model.gates import Threshold, Ups
from sparsedial.model.head import Head
from sparsedial.model.ids import check_range, check_type
from sparsedial.model.rotary import rotary_table
from sparsedial.model.router import Routing, bias_after, check_top_k, route
from sparsedial.shape.shape import Shape

READY_POSITIONS = 4096  # of the rotary table that a new model holds; longer inputs extend it


class DenseFeedForward(nn.Module):
    """SwiGLU for every token, by all neurons or by those whose gate is open far enough."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.w_in_DH = nn.Parameter(torch.empty(d_model, 2 * d_ff))
        self.w_out_FD = nn.Parameter(torch.empty(d_ff, d_model))
        self.threshold: Threshold | None = None  # None: all neurons take part
        self.ups = Ups()

    def forward(self, x_BSD: Tensor, norm_D: Tensor, eps: float, routing: Routing) -> Tensor:
        """x + swiglu(norm(x))."""
        least = self.threshold
        if least is not None:
            if native.usable(x_BSD, norm_D) and not torch.is_grad_enabled():
                scores = least.gate_F, least.norm_F, least.least_gate, least.least_written
                return layers.gated_layer(x_BSD, norm_D, self.w_in_DH, self.w_out_FD, *scores, eps)
            h_BSH = product(rms_norm(x_BSD, norm_D, eps), self.w_in_DH)
            return x_BSD + product(least.activations(h_BSH), self.w_out_FD)
        if native.usable(x_BSD, norm_D):
            return layers.dense_layer(x_BSD, norm_D, self.w_in_DH, self.w_out_FD, eps)
        return dense_layer(x_BSD, norm_D, self.w_in_DH, self.w_out_FD, eps)


class SparseFeedForward(nn.Module):
    """Routed experts, and the shared ones as one dense layer of their total width."""

    bias_E: Tensor | None
    load_E: Tensor

    def __init__(self, shape: Shape, layer: int, kernel: str = "auto") -> None:
        super().__init__()
        self.shape, self.layer, self.kernel = shape, layer, kernel
        self.sizes = sizes = shape.layer(layer)
        experts, d_model, width = sizes.experts, shape.d_model, sizes.d_expert
        self.w_router_DE = nn.Parameter(torch.empty(d_model, experts))
        self.w_in_EDH = nn.Parameter(torch.empty(experts, d_model, 2 * width))
        self.w_out_EFD = nn.Parameter(torch.empty(experts, width, d_model))
        self.shared = DenseFeedForward(d_model, shape.shared_experts * width) if shape.shared_experts else None
        self.w_shared_gate_D1 = nn.Parameter(torch.empty(d_model, 1)) if shape.shared_gate else None
        self.register_buffer("bias_E", torch.zeros(experts) if shape.routing_bias else None)
        self.register_buffer("load_E", torch.zeros(experts, dtype=torch.long), persistent=False)

    def forward(self, x_BSD: Tensor, norm_D: Tensor, eps: float, routing: Routing) -> Tensor:
        """x + the chosen experts and the shared ones of norm(x)."""
        if self.kernel == "auto" and routing.compiles and native.usable(x_BSD, norm_D):
            y_BSD, loss = self._compiled(x_BSD, norm_D, eps, routing)
            if self.shape.shared_gate:
                y_BSD = y_BSD + self._shared(rms_norm(x_BSD, norm_D, eps))
        else:
            x_BSD, normed_BSD = norm_beside(x_BSD, norm_D, eps)
            y_BSD, loss = self._plain(normed_BSD, routing)
            y_BSD = x_BSD + y_BSD
        if routing.losses is not None:
            routing.losses.append(loss)
        return y_BSD

    def _compiled(self, x_BSD: Tensor, norm_D: Tensor, eps: float, routing: Routing) -> tuple[Tensor, Tensor]:
        """The layer in one call, but for shared experts that a gate weighs."""
        shape, shared = self.shape, None if self.shape.shared_gate else self.shared
        return layers.sparse_layer(
            x_BSD,
            norm_D,
            self.w_router_DE,
            self.w_in_EDH,
            self.w_out_EFD,
            None if shared is None else shared.w_in_DH,
            None if shared is None else shared.w_out_FD,
            bias_E=self.bias_E,
            load_E=None if routing.losses is None else self.load_E,
            top_k_T=routing.top_k_T(self.layer, *x_BSD.shape[:2]),
            top_k=self.sizes.top_k,
            groups=shape.expert_groups,
            kept_groups=shape.kept_groups,
            sigmoid=shape.gate == "sigmoid",
            normalize=shape.normalize_gates,
            ones=shape.gate == "ones",
            scaling=shape.routed_scaling,
            top_p=shape.top_p,
            balance_weight=routing.balance_weight,
            z_loss_weight=routing.z_loss_weight,
            eps=eps,
        )

    def _plain(self, x_BSD: Tensor, routing: Routing) -> tuple[Tensor, Tensor]:
        x_TD = x_BSD.flatten(0, 1)
        with torch.autocast(x_TD.device.type, enabled=False):
            logits_TE = x_TD.float() @ self.w_router_DE.float()
        top_k_T = routing.top_k_T(self.layer, *x_BSD.shape[:2])
        chosen_TK, gates_TK, load_E, loss = route(
            logits_TE,
            self.bias_E,
            self.shape,
            self.sizes.top_k,
            len(x_BSD),
            routing.balance_weight,
            routing.z_loss_weight,
            top_k_T,
            routing.kept_E(self.layer),
        )
        if routing.losses is not None:
            self.load_E += load_E
        w_in_EDH, w_out_EFD = widened(x_TD, self.w_in_EDH), widened(x_TD, self.w_out_EFD)
        if routing.watch is None:
            y_TD = sparse_feed_forward(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, self.kernel, top_k_T)
        else:
            y_TD = routing.watch(self.layer, x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK)
        y_BSD = y_TD.view_as(x_BSD)
        if self.shared is not None:
            y_BSD = y_BSD + self._shared(x_BSD)
        return y_BSD, loss

    def _shared(self, x_BSD: Tensor) -> Tensor:
        """The shared experts, weighed by their gate where there is one. Source: Qwen2-MoE in `transformers`"""
        assert self.shared is not None
        y_BSD = product(activate(product(x_BSD, self.shared.w_in_DH)), self.shared.w_out_FD)
        return y_BSD if self.w_shared_gate_D1 is None else torch.sigmoid(x_BSD @ self.w_shared_gate_D1) * y_BSD

    @torch.no_grad()
    def balance(self, rate: float | Tensor) -> None:
        """Move the routing bias by the load since the last call, and forget that load."""
        if self.bias_E is not None and (isinstance(rate, Tensor) or rate):
            self.bias_E.copy_(bias_after(self.bias_E, self.load_E, rate))
        self.load_E.zero_()


class Block(nn.Module):
    """Attention, then feed-forward, each on the normed stream and added to it."""

    def __init__(self, shape: Shape, number: int) -> None:
        super().__init__()
        self.eps = shape.norm_eps
        self.attention_norm_D = nn.Parameter(torch.ones(shape.d_model))
        self.feed_forward_norm_D = nn.Parameter(torch.ones(shape.d_model))
        self.attention = make_attention(shape, number)
        sparse = shape.is_sparse(number)
        self.feed_forward = (
            SparseFeedForward(shape, number) if sparse else DenseFeedForward(shape.d_model, shape.layer(number).d_ff)
        )

    def forward(self, x_BSD: Tensor, place: Place, routing: Routing) -> Tensor:
        x_BSD = self.attention(x_BSD, self.attention_norm_D, place)
        return self.feed_forward(x_BSD, self.feed_forward_norm_D, self.eps, routing)


class Prediction(nn.Module):
    """A multi-token-prediction module: from the stream and the next token's embedding to the stream that predicts the
    token after it; un-embedded by the model's own table.

    Source: DeepSeek-V3 (arXiv 2412.19437), section 2.2
    """

    def __init__(self, shape: Shape, number: int) -> None:
        super().__init__()
        self.eps = shape.norm_eps
        self.embedding_norm_D = nn.Parameter(torch.ones(shape.d_model))
        self.stream_norm_D = nn.Parameter(torch.ones(shape.d_model))
        self.w_join_JD = nn.Parameter(torch.empty(2 * shape.d_model, shape.d_model))  # the embedding's half first
        self.block = Block(shape, number)
        self.norm_D = nn.Parameter(torch.ones(shape.d_model))

    def forward(self, x_BSD: Tensor, next_BSD: Tensor, place: Place, routing: Routing) -> Tensor:
        """The next stream. Shapes: the stream and the embeddings of the tokens after its own [B, S, D] to [B, S, D]"""
        next_BSD = next_BSD.to(self.embedding_norm_D.dtype)
        parts = [rms_norm(next_BSD, self.embedding_norm_D, self.eps), rms_norm(x_BSD, self.stream_norm_D, self.eps)]
        return self.block(product(torch.cat(parts, 2), self.w_join_JD).to(x_BSD.dtype), place, routing)


class Transformer(nn.Module):
    """A decoder of a Shape; called on token ids it gives logits. It may share the rotary table of another."""

    def __init__(self, shape: Shape, rotary: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.stream_dtype: torch.dtype | None = None  # of the residual stream, where it is not the weights'
        table = shape.vocab_size, shape.d_model
        self.embedding_VD = nn.Parameter(torch.empty(table))
        self.blocks = nn.ModuleList(Block(shape, number) for number in range(shape.layers))
        self.norm_D = nn.Parameter(torch.ones(shape.d_model))
        self.unembedding_VD = None if shape.tied_embeddings else nn.Parameter(torch.empty(table))
        self.predictions = nn.ModuleList(Prediction(shape, shape.layers + depth) for depth in range(shape.mtp_layers))
        cosine_SC, sine_SC = rotary or rotary_table(shape, min(shape.context, READY_POSITIONS))
        self.register_buffer("cosine_SC", cosine_SC, persistent=False)
        self.register_buffer("sine_SC", sine_SC, persistent=False)

    def forward(
        self,
        ids_BS: Tensor,
        cache: Cache | None = None,
        routing: Routing | None = None,
        *,
        slots: Sequence[int] | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Logits of the next token at every position.

        With a cache the ids continue the sequences in these slots. `lengths` says how many ids of each row are real;
        the rest is padding.

        Shapes: ids [B, S] to [B, S, V]
        Raises: UserError for a sequence longer than the shape's context, an id outside the vocabulary, a cache made for
            another model, slots or lengths that fit neither it nor the ids.
        """
        place = self.place(ids_BS, cache, slots, lengths)
        return self.logits(self.stream(ids_BS, place, Routing() if routing is None else routing), self.norm_D)

    def logits(self, x_BSD: Tensor, norm_D: Tensor) -> Tensor:
        """Logits of a stream, normed first."""
        return self.head.logits(x_BSD, norm_D)

    @property
    def head(self) -> Head:
        return Head(self.table_VD, self.shape.norm_eps, self.shape.logit_cap)

    @property
    def table_VD(self) -> Tensor:
        """The table of the un-embedding: the embedding itself where they are tied."""
        return self.embedding_VD if self.unembedding_VD is None else self.unembedding_VD

    def place(
        self,
        ids_BS: Tensor,
        cache: Cache | None = None,
        slots: Sequence[int] | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Place:
        """Check new ids and give their positions; the cache's slots count them as filled."""
        self._check(ids_BS)
        if cache is None:
            if slots is not None or lengths is not None:
                raise UserError("model: slots and lengths need a cache, and none was given")
            end = ids_BS.shape[1]
            return Place(rotary=self._rotary(0, end), end=end)
        # The check takes a tenth of a small model's time per token.
        if not any(cache.filled) or cache.shape is not self.shape:
            cache.check(self.shape, self.norm_D)
        rows = cache.rows(len(ids_BS), ids_BS.shape[1], slots, lengths)
        start, end = rows.start, rows.end
        rotary = self._rotary(start, end)
        cache.fill(rows)
        if rows.alike:
            return Place(rotary=rotary, end=end, start=start, cache=cache, first_slot=rows.slots[0])
        apart = rows.apart(ids_BS.device)
        if start:
            rotary = self.cosine_SC[apart.positions_BS].unsqueeze(1), self.sine_SC[apart.positions_BS].unsqueeze(1)
        return Place(rotary=rotary, end=end, start=start, cache=cache, apart=apart)

    def _rotary(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of these positions; the table grows when it is too short.

        Raises: UserError where the positions exceed the shape's context.
        """
        if end > self.shape.context:
            raise UserError(f"model: {end} positions are more than the model's context of {self.shape.context}")
        if end > len(self.cosine_SC):
            length = min(self.shape.context, max(end, 2 * len(self.cosine_SC)))
            with torch.inference_mode(False):  # a training step may follow, whose backward pass keeps the table
                tables = rotary_table(self.shape, length, self.cosine_SC.device)
                self.cosine_SC, self.sine_SC = (table.to(self.cosine_SC.dtype) for table in tables)
        return self.cosine_SC[start:end], self.sine_SC[start:end]

    def stream(self, ids_BS: Tensor, place: Place, routing: Routing) -> Tensor:
        """The residual stream after the last layer. Shapes: ids [B, S] to [B, S, D]"""
        if routing.top_k_LB is not None:
            check_top_k(routing.top_k_LB, self.shape, len(ids_BS))
        x_BSD = functional.embedding(ids_BS, self.embedding_VD).to(self.stream_dtype or self.embedding_VD.dtype)
        for block in self.blocks:
            x_BSD = block(x_BSD, place, routing)
        return x_BSD

    def _check(self, ids_BS: Tensor) -> None:
        check_type(ids_BS)
        if ids_BS.numel() == 0:
            raise UserError("model: no token ids were given")
        if ids_BS.device != self.embedding_VD.device:
            raise UserError(f"model: the ids are on {ids_BS.device}, the weights on {self.embedding_VD.device}")
        check_range(ids_BS, self.shape.vocab_size)

    def loss(
        self,
        ids_BS: Tensor,
        balance_weight: float = 0.0,
        z_loss_weight: float = 0.0,
        mtp_weight: float | Tensor = 0.0,
        top_k_LB: Tensor | None = None,
        main: Callable[[Tensor], Tensor] | None = None,
        weigh: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Training loss on windows of S+1 ids, and the cross-entropy of the next token alone, over all positions.

        The other parts are the router's losses and the weighted mean of the multi-token predictions' losses.
        With `top_k_LB` tokens visit that many experts, as in `Routing`. `main` of the stream [B, S, D] takes the place
        of the cross-entropy in the training loss. `weigh` of the losses of all positions [B, S] gives their weights in
        it, also for the multi-token predictions.

        Shapes: ids [B, S+1] to two scalars, nats per token
        Raises: UserError for ids that a call refuses, or windows too short for the multi-token predictions.
        """
        routing = Routing(balance_weight, z_loss_weight, losses=[], top_k_LB=top_k_LB)
        check_type(ids_BS)
        ids_BS = ids_BS.long()  # the type that targets must have
        ahead = len(self.predictions) if isinstance(mtp_weight, Tensor) or mtp_weight else 0
        if ahead and ids_BS.shape[1] < ahead + 2:
            raise UserError(
                f"model: windows of {ids_BS.shape[1]} ids are too short for {ahead} multi-token predictions",
                hint=f"use at least {ahead + 2} ids (a context of {ahead + 1}), or a smaller shape.mtp_layers",
            )
        place = self.place(ids_BS[:, :-1])
        check_range(ids_BS[:, -1], self.shape.vocab_size)
        x_BSD = self.stream(ids_BS[:, :-1], place, routing)
        each_BS = None if weigh is None else self.head.losses(x_BSD, self.norm_D, ids_BS[:, 1:])
        weight_BS = weigh(each_BS) if weigh is not None and each_BS is not None else None
        with torch.set_grad_enabled(torch.is_grad_enabled() and main is None):
            entropy = self.head.entropy(x_BSD, self.norm_D, ids_BS[:, 1:], weight_BS)
        total = entropy if main is None else main(x_BSD)
        if ahead:
            total = total + mtp_weight / ahead * self._predicted(x_BSD, ids_BS, routing, weight_BS)
        total = sum(routing.losses or [], total)
        return total, entropy.detach() if each_BS is None else each_BS.mean()

    def _predicted(self, x_BSD: Tensor, ids_BS: Tensor, routing: Routing, weight_BS: Tensor | None) -> Tensor:
        """Summed cross-entropy of the tokens after the next, depth by depth; a weight is the predicted token's."""
        total = x_BSD.new_zeros(())
        for depth, (module, next_BSD) in enumerate(self.predicted(x_BSD, ids_BS, routing), start=1):
            own_BS = None if weight_BS is None else weight_BS[:, depth:]
            total = total + self.head.entropy(next_BSD, module.norm_D, ids_BS[:, depth + 1 :], own_BS)
        return total

    def predicted(self, x_BSD: Tensor, ids_BS: Tensor, routing: Routing) -> Iterator[tuple[Prediction, Tensor]]:
        """Each module of multi-token prediction, with its stream, for the stream of windows of S+1 ids."""
        for depth, module in enumerate(self.predictions, start=1):
            assert isinstance(module, Prediction)
            x_BSD, next_BS = x_BSD[:, :-1], ids_BS[:, depth:-1]
            x_BSD = module(x_BSD, functional.embedding(next_BS, self.embedding_VD), self.place(next_BS), routing)
            yield module, x_BSD

    @property
    def every_block(self) -> list[Block]:
        """The layers, first to last, then those of multi-token prediction."""
        return [*self.blocks, *(module.block for module in self.predictions)]  # type: ignore[list-item]

    @property
    def sparse_feed_forwards(self) -> list[SparseFeedForward]:
        """The routed ones of every block."""
        return [part for block in self.every_block if isinstance(part := block.feed_forward, SparseFeedForward)]


def initialise(shape: Shape, seed: int) -> Transformer:
    """A model with random weights: 1/sqrt(fan_in), residual outputs divided by sqrt(2 layers), embeddings by 2 sqrt(D).

    The same seed gives the same weights on every machine and device.
    """
    model = Transformer(shape)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            continue  # norms stay at one, biases at zero
        std = parameter.shape[-2] ** -0.5  # of the fan-in
        leaf = name.rpartition(".")[2]
        if leaf in ("w_out_QD", "w_out_FD", "w_out_EFD"):
            std /= math.sqrt(2 * shape.layers)
        elif leaf in ("embedding_VD", "unembedding_VD"):
            std = 0.5 * shape.d_model**-0.5
        with torch.no_grad():
            parameter.normal_(0, std, generator=generator)
    return model
