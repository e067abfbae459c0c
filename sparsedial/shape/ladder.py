"""The ladder of a study: one dial, `d_model`, sets every other size of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsedial.errors import UserError
from sparsedial.shape.shape import Shape

RUNGS: tuple[int, ...] = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)  # values of d_model


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """What all shapes of a study share; a rung adds the width and the number of experts."""

    vocab_size: int
    context: int
    top_k: int = 2
    shared_experts: int = 1

    def shape(self, d_model: int, experts: int) -> Shape:
        """The dense shape (experts=0) or its sparse twin of the same active width.

        * Heads: at least two, with 32 channels each up to d_model 256 and with 64 above.
        * Layers: one for every 32 channels of d_model up to 512, then growing with its square root; at least two. More
          would be slow: the step of a tiny model takes as long as the calls of its layers.
        * d_ff = 3 d_model, which is three experts of width d_model, so a twin differs only in its router.

        Raises: UserError where `experts` is smaller than `top_k`.
        """
        if d_model % 4:
            raise UserError(f"ladder: d_model={d_model} is not a multiple of 4")
        heads = max(2, d_model // 32 if d_model <= 256 else d_model // 64)
        d_ff = 3 * d_model
        dense = Shape(
            layers=max(2, round(d_model / 32)) if d_model <= 512 else round(16 * (d_model / 512) ** 0.5),
            d_model=d_model,
            heads=heads,
            kv_heads=heads,
            head_dim=d_model // heads,
            d_ff=d_ff,
            vocab_size=self.vocab_size,
            context=self.context,
            tied_embeddings=True,
            qk_norm="head",
        )
        return dense if experts == 0 else sparse_twin(dense, experts, self.top_k, self.shared_experts)


def sparse_twin(dense: Shape, experts: int, top_k: int, shared_experts: int) -> Shape:
    """The sparse shape with the dense one's active feed-forward width and DeepSeek-V3's router.

    Raises: UserError where top_k + shared_experts does not divide d_ff.
    """
    active = top_k + shared_experts
    if active < 1 or dense.d_ff % active:
        raise UserError(
            f"ladder: top_k={top_k} + shared_experts={shared_experts} does not divide d_ff={dense.d_ff}",
            hint="a sum of 1, 2, 3, 4, 6 or 12 divides it at every width",
        )
    return replace(
        dense,
        d_ff=0,
        experts=experts,
        top_k=top_k,
        shared_experts=shared_experts,
        d_expert=dense.d_ff // active,
        gate="sigmoid",
        normalize_gates=True,
        routed_scaling=float(top_k),  # the routed sum is then as large as in the dense twin
        routing_bias=True,
    )
