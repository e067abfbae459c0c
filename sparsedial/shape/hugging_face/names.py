"""Names of tensors that many families share, by our names; they hold {layer} and {expert}."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sparsedial.shape.rules import Layout, Rule
from sparsedial.shape.shape import Shape

LAYER = "model.layers.{layer}."
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def named(names: Mapping[str, str], prefix: str = "", layout: Layout = "plain", switch: str = "") -> tuple[Rule, ...]:
    """One rule for each part of ours, which only renames it."""
    return tuple(
        Rule(theirs=f"{prefix}{theirs}", ours=(ours,), layout=layout, switch=switch) for ours, theirs in names.items()
    )


TRUNK = (
    *named({"embedding": EMBEDDING, "norm": "model.norm.weight", "unembedding": HEAD}),
    *named({"attention_norm": "input_layernorm.weight", "feed_forward_norm": "post_attention_layernorm.weight"}, LAYER),
)
PREDICTION = named(  # as DeepSeek names it; `transformers` ignores it
    {
        "embedding_norm": "enorm.weight",
        "stream_norm": "hnorm.weight",
        "join": "eh_proj.weight",
        "prediction_norm": "shared_head.norm.weight",
    },
    LAYER,
)
PROJECTIONS = named(
    {
        "attention.query": "self_attn.q_proj.weight",
        "attention.key": "self_attn.k_proj.weight",
        "attention.value": "self_attn.v_proj.weight",
        "attention.output": "self_attn.o_proj.weight",
    },
    LAYER,
)
BIASES = named(
    {
        "attention.query_bias": "self_attn.q_proj.bias",
        "attention.key_bias": "self_attn.k_proj.bias",
        "attention.value_bias": "self_attn.v_proj.bias",
    },
    LAYER,
)
NORMS = named(
    {"attention.query_norm": "self_attn.q_norm.weight", "attention.key_norm": "self_attn.k_norm.weight"}, LAYER
)
TURNED = {f"attention.{name}{kind}" for name in ("query", "key") for kind in ("", "_bias", "_norm")}
LEADING_ROTATED = tuple(  # of a family whose positions rotate only the first channels of a head
    replace(rule, layout="leading") if rule.ours[0] in TURNED else rule for rule in (*PROJECTIONS, *BIASES, *NORMS)
)
DENSE = named({f"feed_forward.{ours}": f"mlp.{ours}_proj.weight" for ours in ("gate", "up", "down")}, LAYER)
SHARED = named({f"shared.{ours}": f"mlp.shared_experts.{ours}_proj.weight" for ours in ("gate", "up", "down")}, LAYER)
SHARED_GATED = named(
    {
        **{f"shared.{ours}": f"mlp.shared_expert.{ours}_proj.weight" for ours in ("gate", "up", "down")},
        "shared_gate": "mlp.shared_expert_gate.weight",
    },
    LAYER,
)
ROUTING_BIAS = named({"routing_bias": "mlp.gate.e_score_correction_bias"}, LAYER)


def experts(module: str, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj") -> tuple[Rule, ...]:
    """The router and single experts; a layer's experts in two tensors, as in `transformers` 5, are read too."""
    prefix = f"{LAYER}{module}."
    alone = {
        f"experts.{ours}": f"experts.{{expert}}.{theirs}.weight"
        for ours, theirs in {"gate": gate, "up": up, "down": down}.items()
    }
    return (
        *named({"router": "gate.weight", **alone}, prefix),
        Rule(theirs=f"{prefix}experts.gate_up_proj", ours=("experts.gate", "experts.up"), stacked=True),
        Rule(theirs=f"{prefix}experts.down_proj", ours=("experts.down",), stacked=True),
    )


def latent_attention(switch: str = "") -> tuple[Rule, ...]:
    """DeepSeek's attention; rotated channels lie in pairs, unless the field `switch` of a config is false."""
    plain = {
        "attention.latent_norm": "self_attn.kv_a_layernorm.weight",
        "attention.latent_up": "self_attn.kv_b_proj.weight",
        "attention.output": "self_attn.o_proj.weight",
        "attention.query_down": "self_attn.q_a_proj.weight",
        "attention.query_down_norm": "self_attn.q_a_layernorm.weight",
    }
    rotated = {
        "attention.latent": "self_attn.kv_a_proj_with_mqa.weight",
        "attention.query": "self_attn.q_proj.weight",
        "attention.query_up": "self_attn.q_b_proj.weight",
    }
    return (*named(plain, LAYER), *named(rotated, LAYER, "pairs", switch))


_EITHER = (*TRUNK, *DENSE, *experts("mlp"), *ROUTING_BIAS, *SHARED, SHARED_GATED[-1], *PREDICTION)
OWN_GROUPED = (*_EITHER, *PROJECTIONS, *BIASES, *NORMS)  # of shapes that no family fits
OWN_LATENT = (*_EITHER, *latent_attention("rope_interleave"))


def repeated_names(shape: Shape) -> set[str]:
    """Tensors that are known without reading them: copies of shared embedding tables, and rotary frequencies, which
    older files store and the shape gives."""
    layers = [f"model.layers.{layer}" for layer in range(shape.layers + shape.mtp_layers)]
    frequencies = [f"{prefix}.rotary_emb.inv_freq" for prefix in ("model", *(f"{at}.self_attn" for at in layers))]
    shared = [
        f"{at}.{table}" for at in layers[shape.layers :] for table in ("embed_tokens.weight", "shared_head.head.weight")
    ]
    return {*frequencies, *shared, *([HEAD] if shape.tied_embeddings else [])}
