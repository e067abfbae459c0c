"""What families cannot express, each with its reason; the error for such a Shape names the field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sparsedial.shape.shape import Shape


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A field of a Shape of which a family can express only some values."""

    field: str
    reason: str  # what the family has instead
    allows: Callable[[Shape], bool]

    def words(self, shape: Shape) -> str:
        """The value that the family cannot express, and why."""
        value = f"={getattr(shape, self.field)}" if self.field != "own_layers" else ""
        return f"{self.field}{value} ({self.reason})"


def only(field: str, *values: Any, reason: str) -> Limit:
    """A limit to these values of a field."""
    return Limit(field=field, reason=reason, allows=lambda shape: getattr(shape, field) in values)


EVERY = (
    only("logit_cap", 0, reason="its logits have no cap"),
    only("top_p", 1, reason="a token keeps all its top_k experts"),
    only("own_layers", (), reason="its layers do not differ in their sizes"),
)
WHOLE_HEADS = only("rotated", 0, reason="positions rotate all channels of its heads")
DENSE = (*EVERY, WHOLE_HEADS, only("experts", 0, reason="all its layers are dense"))
SPARSE = (*EVERY, Limit(field="experts", reason="it has experts", allows=lambda shape: shape.experts > 0))
GROUPED = only("kv_lora_rank", 0, reason="its attention is not latent")
LATENT = Limit(field="kv_lora_rank", reason="its attention is latent", allows=lambda shape: shape.latent_attention)
NO_WINDOW = only("window", 0, reason="its layers see all positions")
ONE_WINDOW = only("full_layers", 0, reason="its window holds for all layers")
NO_NORMS = only("qk_norm", "none", reason="its queries and keys are not normed")
NO_BIAS = only("attention_bias", False, reason="its projections have no biases")
BIAS = only("attention_bias", True, reason="its queries, keys and values have biases")
OUTPUT_BIAS = only("attention_bias", False, reason="its biases include one on the output projection")
DIVIDED = Limit(
    field="d_model", reason="its heads must divide it", allows=lambda shape: shape.d_model % shape.heads == 0
)
LEADING = only("dense_places", (), reason="its dense layers come first")
SHARED_GATE = only("shared_gate", True, reason="a gate weighs its shared experts")
NO_SHARED_GATE = only("shared_gate", False, reason="no gate weighs its shared experts")
ALL_SPARSE = (only("dense_layers", 0, reason="all its layers are sparse"), LEADING)
SOFTMAX_ROUTER = (
    only("gate", "softmax", reason="its gates are a softmax"),
    only("routing_bias", False, reason="no bias takes part in its choice"),
    only("routed_scaling", 1, reason="its gates are not scaled"),
    only("expert_groups", 1, reason="its experts form no groups"),
)
PLAIN_ROUTER = (*SOFTMAX_ROUTER, only("shared_experts", 0, reason="it shares no expert"))
SIGMOID_ROUTER = (
    only("gate", "sigmoid", reason="its gates are sigmoids"),
    only("routing_bias", True, reason="a bias takes part in its choice"),
)
SHARED = Limit(
    field="shared_experts", reason="it shares an expert or more", allows=lambda shape: shape.shared_experts > 0
)
