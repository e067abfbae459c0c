"""Multi-head latent attention in a `config.json`, as DeepSeek-V2 and V3 have it."""

from __future__ import annotations

from sparsedial.shape.hugging_face.values import Config, Fields
from sparsedial.shape.shape import Shape

DEFAULTS: Fields = {
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}


def read_latent(config: Config) -> Fields:
    """Ranks and the sizes of a head's parts; every head has keys and values of its own, whatever the file says."""
    nope, rope = config.whole("qk_nope_head_dim"), config.whole("qk_rope_head_dim")
    return {
        "kv_heads": config.whole("num_attention_heads"),
        "kv_lora_rank": config.whole("kv_lora_rank"),
        "q_lora_rank": config.whole("q_lora_rank", 0),
        "nope_head_dim": nope,
        "rope_head_dim": rope,
        "v_head_dim": config.whole("v_head_dim"),
        "head_dim": nope + rope,
    }


def written_latent(shape: Shape) -> Fields:
    """The same, for a `config.json`."""
    return {
        "kv_lora_rank": shape.kv_lora_rank,
        "q_lora_rank": shape.q_lora_rank or None,
        "qk_nope_head_dim": shape.nope_head_dim,
        "qk_rope_head_dim": shape.rope_head_dim,
        "v_head_dim": shape.v_head_dim,
    }
