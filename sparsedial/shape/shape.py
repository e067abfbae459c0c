"""The Shape: what a model is before it has weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from sparsedial.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary angles are scaled for contexts beyond the one that a model was first trained at.

    Source: YaRN, Peng et al. 2023 (arXiv 2309.00071), with DeepSeek-V2's two scales of the logits; "llama3" as in
    Llama 3.1's release; "linear", Chen et al. 2023 (arXiv 2306.15595)
    """

    kind: Literal["yarn", "llama3", "linear"]
    factor: float  # the longer context over the original one
    original_context: int
    beta_fast: float = 32.0  # yarn: channels with more rotations than this in the original context stay as they are
    beta_slow: float = 1.0  # yarn: channels with fewer than this are scaled in full
    truncate: bool = True  # yarn: round the borders to whole channels
    attention_factor: float | None = None  # yarn: multiplies sines and cosines; None: from the factor and both scales
    mscale: float = 0.0
    mscale_all_dim: float = 0.0  # above 0: the scale of the attention scores grows too (latent attention only)
    low_frequency_factor: float = (
        1.0  # llama3: channels with fewer rotations than this in the original context are scaled
    )
    high_frequency_factor: float = 4.0  # llama3: channels with more than this stay as they are

    def __post_init__(self) -> None:
        if not 1 <= self.factor < math.inf or self.original_context < 1:
            raise UserError(
                f"shape: rope_scaling factor={self.factor:g} or original_context={self.original_context} is below 1, or"
                " not finite"
            )
        for name in ("beta_fast", "beta_slow", "attention_factor", "low_frequency_factor", "high_frequency_factor"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"shape: rope_scaling {name}={value:g} is not a number above 0")
        for name in ("mscale", "mscale_all_dim"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"shape: rope_scaling {name}={getattr(self, name):g} is not a number of at least 0")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The feed-forward part of one layer: dense, or routed where it has experts."""

    d_ff: int = 0  # width of a dense layer
    experts: int = 0  # routed experts
    top_k: int = 0  # routed experts that one token visits
    d_expert: int = 0  # width of one expert

    @property
    def is_sparse(self) -> bool:
        """Whether tokens are routed."""
        return self.experts > 0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a model is before it has weights; dense when it has no experts.

    Raises: UserError for sizes that no model can have.
    """

    layers: int  # transformer blocks
    d_model: int  # residual stream
    heads: int  # query heads
    kv_heads: int  # grouped-query attention: heads that share keys and values
    head_dim: int  # channels of a head
    d_ff: int  # width of a dense feed-forward layer; 0 where every layer is sparse
    vocab_size: int  # tokens of the vocabulary
    context: int  # most positions of a sequence

    experts: int = 0  # routed experts per sparse layer; 0 is a dense model
    top_k: int = 0  # routed experts that one token visits
    shared_experts: int = 0  # experts that every token visits
    d_expert: int = 0  # width of one expert
    shared_gate: bool = False  # a sigmoid of the token weighs the shared experts' output
    dense_layers: int = 0  # leading layers of a sparse model that stay dense
    dense_places: tuple[int, ...] = ()  # other layers of a sparse model that stay dense, counted from 0
    gate: Literal["softmax", "sigmoid", "ones"] = "softmax"  # how the router's logits become weights; ones: they choose
    normalize_gates: bool = True  # the chosen experts' weights sum to one
    routed_scaling: float = 1.0  # factor on the routed experts' output
    routing_bias: bool = False  # a buffer that balances the choice and never enters the output
    expert_groups: int = 1  # groups that the experts are divided into
    kept_groups: int = 1  # groups of experts that one token may choose from
    top_p: float = 1.0  # a token keeps the fewest of its top_k experts whose weights reach this share

    tied_embeddings: bool = False  # one table for embedding and unembedding
    qk_norm: Literal["none", "head", "full"] = "none"  # per head (Qwen3) or over the whole projection (OLMoE)
    attention_bias: bool = False  # on the query, key and value projections
    norm_eps: float = 1e-6  # added to the mean square in norms
    rope_theta: float = 10_000.0  # base of the rotary angles
    rotated: int = 0  # channels of a head that positions rotate; 0 is all
    rope_scaling: RopeScaling | None = None  # of rotary angles, for long contexts
    window: int = 0  # most positions that a query sees, its own included; 0 is all
    full_layers: int = 0  # leading layers that see all positions where the others have a window
    logit_cap: float = 0.0  # above 0: logits are cap * tanh(logits / cap)

    kv_lora_rank: int = 0  # above 0: multi-head latent attention, with the four sizes below
    q_lora_rank: int = 0  # 0: queries are not compressed
    nope_head_dim: int = 0  # channels of a key without rotary angles
    rope_head_dim: int = 0  # channels of a key with rotary angles
    v_head_dim: int = 0  # channels of a value
    mtp_layers: int = 0  # multi-token-prediction modules
    own_layers: tuple[Layer, ...] = ()  # every layer's own sizes where layers differ; see `with_layers`

    def __post_init__(self) -> None:
        for name in ("layers", "d_model", "heads", "kv_heads", "head_dim", "vocab_size", "context"):
            if getattr(self, name) < 1:
                raise UserError(f"shape: {name}={getattr(self, name)} is below 1")
        if isinstance(self.rope_scaling, Mapping):  # from a record
            object.__setattr__(self, "rope_scaling", RopeScaling(**self.rope_scaling))
        object.__setattr__(self, "dense_places", tuple(self.dense_places))
        if self.own_layers:
            self._read_own_layers()
        if self.heads % self.kv_heads:
            raise UserError(f"shape: kv_heads={self.kv_heads} does not divide heads={self.heads}")
        if self.head_dim % 2 and not self.latent_attention:
            raise UserError(f"shape: head_dim={self.head_dim} is odd", hint="rotary positions rotate pairs of channels")
        if self.rotated % 2 or not 0 <= self.rotated < self.head_dim or (self.rotated and self.latent_attention):
            raise UserError(
                f"shape: rotated={self.rotated} is not an even number of channels below head_dim={self.head_dim}",
                hint="0 rotates all; latent attention has rope_head_dim",
            )
        self._check_numbers()
        if self.window < 0 or not 0 <= self.full_layers <= self.layers or not 0 <= self.logit_cap < math.inf:
            raise UserError(
                f"shape: window={self.window}, full_layers={self.full_layers}, logit_cap={self.logit_cap:g} do not fit"
                f" {self.layers} layers"
            )
        if self.latent_attention:
            self._check_latent()
        if self.experts:
            self._check_experts()
        elif self.top_k or self.shared_experts or self.d_expert or self.dense_layers or self.dense_places:
            raise UserError("shape: a dense model (experts=0) has no top_k, shared_experts, d_expert or dense_layers")
        if self.d_ff < 1 and self.dense_feed_forwards and not self.own_layers:
            raise UserError(f"shape: d_ff={self.d_ff} is below 1, and the model has dense layers")

    def _read_own_layers(self) -> None:
        """Read the layers from a record, or take them as they are; the shape states the largest of their sizes."""
        layers = tuple(Layer(**layer) if isinstance(layer, Mapping) else layer for layer in self.own_layers)
        object.__setattr__(self, "own_layers", layers)
        largest = _largest(layers)
        stated = {name: getattr(self, name) for name in largest}
        if len(layers) != self.layers or stated != largest or self.dense_layers or self.dense_places:
            raise UserError(
                f"shape: own_layers has {len(layers)} layers with at most {largest}, but the shape states"
                f" {self.layers} layers with {stated}",
                hint="leave dense_layers and dense_places out; own_layers says which layers are dense",
            )
        for number, layer in enumerate(layers):
            if layer.is_sparse and not (1 <= layer.top_k <= layer.experts and layer.d_expert > 0 and not layer.d_ff):
                raise UserError(f"shape: layer {number} is not a valid sparse layer: {layer}")
            if not layer.is_sparse and (layer.d_ff < 1 or layer.top_k or layer.d_expert):
                raise UserError(f"shape: layer {number} is not a valid dense layer: {layer}")
            if layer.is_sparse:
                self._check_groups(layer)

    def _check_numbers(self) -> None:
        for name in ("mtp_layers", "kv_lora_rank", "q_lora_rank", "nope_head_dim", "rope_head_dim", "norm_eps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"shape: {name}={getattr(self, name):g} is not a number of at least 0")
        for name in ("rope_theta", "routed_scaling"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"shape: {name}={getattr(self, name):g} is not a number above 0")
        if self.rope_scaling is not None and self.rope_scaling.kind == "yarn" and self.rope_theta <= 1:
            raise UserError(
                f"shape: rope_theta={self.rope_theta:g} is not above 1, as YaRN needs", hint="for example 10000"
            )

    def _check_latent(self) -> None:
        if self.rope_head_dim % 2 or self.head_dim != self.nope_head_dim + self.rope_head_dim or self.v_head_dim < 1:
            raise UserError(
                f"shape: nope_head_dim={self.nope_head_dim}, rope_head_dim={self.rope_head_dim} and"
                f" v_head_dim={self.v_head_dim} do not fit head_dim={self.head_dim}",
                hint="head_dim is nope_head_dim + rope_head_dim, rope_head_dim is even, v_head_dim is at least 1",
            )
        if self.kv_heads != self.heads or self.qk_norm != "none" or self.window or self.attention_bias:
            raise UserError("shape: latent attention has no grouped queries (kv_heads), qk_norm, window or bias")

    def _check_experts(self) -> None:
        if not 1 <= self.top_k <= self.experts:
            raise UserError(
                f"shape: top_k={self.top_k} lies outside 1..experts={self.experts}",
                hint="top_k counts the routed experts that each token visits",
            )
        if self.gate == "ones" and self.normalize_gates:
            raise UserError(
                "shape: weights that are ones (gate) cannot sum to one", hint="set normalize_gates to false"
            )
        if self.shared_gate and not self.shared_experts:
            raise UserError("shape: shared_gate=True weighs shared experts, but shared_experts=0")
        if self.d_expert < 1 or self.shared_experts < 0:
            raise UserError(
                f"shape: d_expert={self.d_expert} is below 1, or shared_experts={self.shared_experts} below 0"
            )
        if not 0 <= self.dense_layers <= self.layers:
            raise UserError(f"shape: dense_layers={self.dense_layers} lies outside 0..layers={self.layers}")
        others = self.dense_places
        if list(others) != sorted(set(others)) or any(not self.dense_layers <= at < self.layers for at in others):
            raise UserError(
                f"shape: dense_places={others} are not increasing layer numbers from dense_layers={self.dense_layers}"
                f" to {self.layers - 1}"
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"shape: top_p={self.top_p:g} is not above 0 and at most 1")
        if not self.own_layers:
            self._check_groups(self._sparse_layer)

    def _check_groups(self, layer: Layer) -> None:
        groups = self.expert_groups
        if groups < 1 or layer.experts % groups or not 1 <= self.kept_groups <= groups:
            raise UserError(
                f"shape: expert_groups={self.expert_groups}, kept_groups={self.kept_groups}"
                f" do not fit experts={layer.experts}"
            )
        if layer.top_k > layer.experts // groups * self.kept_groups:
            raise UserError(f"shape: top_k={layer.top_k} is more than the kept groups hold")

    @property
    def latent_attention(self) -> bool:
        """Whether keys and values are compressed (multi-head latent attention)."""
        return self.kv_lora_rank > 0

    def layer(self, number: int) -> Layer:
        """The feed-forward part of a layer, counted from 0; modules of multi-token prediction follow the last layer."""
        if self.own_layers and number < self.layers:
            return self.own_layers[number]
        dense = number < self.dense_layers or number in self.dense_places
        return Layer(d_ff=self.d_ff) if dense or not self.experts else self._sparse_layer

    @property
    def _sparse_layer(self) -> Layer:
        return Layer(experts=self.experts, top_k=self.top_k, d_expert=self.d_expert)

    @property
    def kinds(self) -> tuple[tuple[Layer, int], ...]:
        """Each distinct feed-forward part, with the number of layers that have it."""
        if self.own_layers:
            return tuple(Counter(self.own_layers).items())
        dense = self.dense_layers + len(self.dense_places) if self.experts else self.layers
        kinds = ((self._sparse_layer, self.layers - dense), (Layer(d_ff=self.d_ff), dense))
        return tuple((layer, count) for layer, count in kinds if count)

    @property
    def sparse_layers(self) -> int:
        """Layers whose feed-forward part is routed."""
        return sum(count for layer, count in self.kinds if layer.is_sparse)

    def is_sparse(self, layer: int) -> bool:
        """Whether a layer's feed-forward part is routed."""
        return self.layer(layer).is_sparse

    @property
    def all_experts(self) -> int:
        """Routed experts of all layers together."""
        return sum(count * layer.experts for layer, count in self.kinds)

    @property
    def all_choices(self) -> int:
        """Routed experts that one token visits in all layers together."""
        return sum(count * layer.top_k for layer, count in self.kinds)

    def window_of(self, layer: int) -> int:
        """The most positions that a query of a layer sees; 0 is all."""
        return self.window if layer >= self.full_layers else 0

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that are rotated by their position."""
        return self.rope_head_dim if self.latent_attention else self.rotated or self.head_dim

    @property
    def dense_feed_forwards(self) -> int:
        """Layers whose feed-forward part is dense."""
        return self.layers - self.sparse_layers

    @property
    def sparsity(self) -> float:
        """Expert sparsity 1 - top_k/experts over the sparse layers; 0 for dense.

        Source: Abnar et al. 2025 (arXiv 2501.12370), section 2
        """
        return 1 - self.all_choices / self.all_experts if self.all_experts else 0.0

    @property
    def experts_per_choice(self) -> float:
        """experts/top_k: routed experts per expert that a token visits; 1 for dense."""
        return self.all_experts / self.all_choices if self.all_experts else 1.0

    @property
    def activation_ratio(self) -> float:
        """(top_k + shared) / (experts + shared) over the sparse layers; 1 for dense.

        Source: Ling 2025 (arXiv 2507.17702)
        """
        shared = self.shared_experts * self.sparse_layers
        return (self.all_choices + shared) / (self.all_experts + shared) if self.all_experts else 1.0

    def record(self) -> dict[str, Any]:
        """The shape as JSON; what few models have is left out of the others, whose records are as they were before."""
        return {name: value for name, value in asdict(self).items() if value or name not in RARE}


RARE = ("own_layers", "shared_gate", "rotated")
# Fields of which only sparse layers have use.
ROUTED = (
    "experts", "top_k", "shared_experts", "d_expert", "shared_gate", "gate", "normalize_gates", "routed_scaling",
    "routing_bias", "expert_groups", "kept_groups", "top_p", "dense_layers", "dense_places",
)  # fmt: skip


def _largest(layers: Sequence[Layer]) -> dict[str, int]:
    return {
        name: max((getattr(layer, name) for layer in layers), default=0)
        for name in ("d_ff", "experts", "top_k", "d_expert")
    }


def with_top_k(shape: Shape, top_k: int) -> Shape:
    """The same sparse model whose tokens visit at most so many experts in each layer."""
    if not shape.own_layers:
        return replace(shape, top_k=min(top_k, shape.top_k))
    return with_layers(shape, [replace(layer, top_k=min(top_k, layer.top_k)) for layer in shape.own_layers])


def with_layers(shape: Shape, layers: Sequence[Layer]) -> Shape:
    """The same model with these feed-forward parts, one per layer; the number of layers may change.

    Layers that `experts`, `dense_layers` and similar fields can describe are described by them, so that equal shapes
    compare equal.

    Raises: UserError for layers that no model can have.
    """
    bare = {"layers": len(layers), "dense_layers": 0, "dense_places": (), "own_layers": ()}
    sizes = _largest(layers)
    if not sizes["experts"]:
        bare |= {"shared_experts": 0, "shared_gate": False}
    dense = [number for number, layer in enumerate(layers) if not layer.is_sparse]
    leading = next((number for number, layer in enumerate(layers) if layer.is_sparse), len(layers))
    plain = {**bare, **sizes}
    if sizes["experts"]:
        plain |= {"dense_layers": leading, "dense_places": tuple(number for number in dense if number >= leading)}
    if len({layer for layer in layers if layer.is_sparse}) <= 1 and len({layers[number] for number in dense}) <= 1:
        return replace(shape, **plain)
    return replace(shape, **{**bare, **sizes, "own_layers": tuple(layers)})
