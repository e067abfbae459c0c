"""The Shape: what a model is before it has weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sparsedial.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a model is before it has weights; dense when it has no experts.

    Raises: UserError for sizes that no model can have.
    """

    layers: int
    d_model: int  # residual stream
    heads: int  # query heads
    kv_heads: int  # grouped-query attention: heads that share keys and values
    head_dim: int
    d_ff: int  # width of a dense feed-forward layer; 0 where every layer is sparse
    vocab_size: int
    context: int  # the most positions that the model is meant for

    experts: int = 0  # routed experts per sparse layer; 0 is a dense model
    top_k: int = 0  # routed experts that one token visits
    shared_experts: int = 0  # experts that every token visits
    d_expert: int = 0  # width of one expert
    dense_layers: int = 0  # leading layers of a sparse model that stay dense
    gate: Literal["softmax", "sigmoid"] = "softmax"
    normalize_gates: bool = True  # the chosen experts' weights sum to one
    routed_scaling: float = 1.0  # factor on the routed experts' output
    routing_bias: bool = False  # a buffer that balances the choice and never enters the output
    expert_groups: int = 1
    kept_groups: int = 1  # groups of experts that one token may choose from

    tied_embeddings: bool = False
    qk_norm: Literal["none", "head", "full"] = "none"  # per head (Qwen3) or over the whole projection (OLMoE)
    attention_bias: bool = False  # on the query, key and value projections
    norm_eps: float = 1e-6
    rope_theta: float = 10_000.0

    kv_lora_rank: int = 0  # above 0: multi-head latent attention, with the four sizes below
    q_lora_rank: int = 0  # 0: queries are not compressed
    nope_head_dim: int = 0
    rope_head_dim: int = 0
    v_head_dim: int = 0
    mtp_layers: int = 0  # multi-token-prediction modules

    def __post_init__(self) -> None:
        for name in ("layers", "d_model", "heads", "kv_heads", "head_dim", "vocab_size", "context"):
            if getattr(self, name) < 1:
                raise UserError(f"shape: {name}={getattr(self, name)} is below 1")
        if self.heads % self.kv_heads:
            raise UserError(f"shape: kv_heads={self.kv_heads} does not divide heads={self.heads}")
        if self.head_dim % 2 and not self.latent_attention:
            raise UserError(f"shape: head_dim={self.head_dim} is odd", hint="rotary positions turn pairs of channels")
        if self.experts:
            self._check_experts()
        elif self.top_k or self.shared_experts or self.d_expert or self.dense_layers:
            raise UserError("shape: a dense model (experts=0) has no top_k, shared_experts, d_expert or dense_layers")
        if self.d_ff < 1 and self.dense_feed_forwards:
            raise UserError(f"shape: d_ff={self.d_ff} is below 1, and the model has dense layers")

    def _check_experts(self) -> None:
        if not 1 <= self.top_k <= self.experts:
            raise UserError(
                f"shape: top_k={self.top_k} lies outside 1..experts={self.experts}",
                hint="top_k counts the routed experts that each token visits",
            )
        if self.d_expert < 1 or self.shared_experts < 0:
            raise UserError(f"shape: d_expert={self.d_expert}, shared_experts={self.shared_experts} make no expert")
        if not 0 <= self.dense_layers <= self.layers:
            raise UserError(f"shape: dense_layers={self.dense_layers} lies outside 0..layers={self.layers}")
        if self.experts % self.expert_groups or not 1 <= self.kept_groups <= self.expert_groups:
            raise UserError(
                f"shape: expert_groups={self.expert_groups}, kept_groups={self.kept_groups}"
                f" do not fit experts={self.experts}"
            )
        if self.top_k > self.experts // self.expert_groups * self.kept_groups:
            raise UserError(f"shape: top_k={self.top_k} is more than the kept groups hold")

    @property
    def latent_attention(self) -> bool:
        """Whether keys and values are compressed (multi-head latent attention)."""
        return self.kv_lora_rank > 0

    @property
    def sparse_layers(self) -> int:
        """Layers whose feed-forward part is routed."""
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def dense_feed_forwards(self) -> int:
        """Layers whose feed-forward part is dense."""
        return self.layers - self.sparse_layers

    @property
    def sparsity(self) -> float:
        """Expert sparsity 1 - top_k/experts; 0 for dense.

        Source: Abnar et al. 2025 (arXiv 2501.12370), section 2
        """
        return 1 - self.top_k / self.experts if self.experts else 0.0

    @property
    def experts_per_choice(self) -> float:
        """experts/top_k, how many times as many routed experts a layer holds as one token visits; 1 for dense."""
        return self.experts / self.top_k if self.experts else 1.0

    @property
    def activation_ratio(self) -> float:
        """(top_k + shared) / (experts + shared); 1 for dense.

        Source: Ling 2025 (arXiv 2507.17702)
        """
        return (self.top_k + self.shared_experts) / (self.experts + self.shared_experts) if self.experts else 1.0
