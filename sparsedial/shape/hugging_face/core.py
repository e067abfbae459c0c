"""The fields that every family has, read and written."""

from __future__ import annotations

from typing import Any

from sparsedial.shape.hugging_face.rope import read_rope, written_rope
from sparsedial.shape.hugging_face.values import Config, Fields
from sparsedial.shape.shape import Shape

DEFAULTS: Fields = {
    "num_key_value_heads": None,  # null: as many as there are heads
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
}
# Fields that change the model, and the values of them that we support.
ONLY: dict[str, tuple[Any, ...]] = {
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "clip_qkv": (None,),
    "hidden_act": (None, "silu"),
    "partial_rotary_factor": (None, 1.0),
}
ANY_BIAS: dict[str, tuple[Any, ...]] = {"attention_bias": (None, False, True)}  # of families that ignore the field
ONLY_WHOLE = {**ONLY, "sliding_window": (None,)}  # of families whose layers see all positions


def read_core(config: Config) -> Fields:
    """The sizes of a dense model; a family's own fields come on top."""
    heads, d_model = config.whole("num_attention_heads"), config.whole("hidden_size")
    return {
        "layers": config.whole("num_hidden_layers"),
        "d_model": d_model,
        "heads": heads,
        "kv_heads": config.whole("num_key_value_heads", heads),
        "head_dim": config.whole("head_dim", d_model // max(heads, 1)),
        "d_ff": config.whole("intermediate_size"),
        "vocab_size": config.whole("vocab_size"),
        "context": config.whole("max_position_embeddings"),
        "tied_embeddings": config.truth("tie_word_embeddings"),
        "norm_eps": config.positive("rms_norm_eps"),
        "mtp_layers": config.whole("num_nextn_predict_layers", 0),
        **read_rope(config),
    }


def written_core(shape: Shape, dtype: str, end_token: int | None) -> Fields:
    """The fields of every family's `config.json`, in its order."""
    rope = written_rope(shape)
    return {
        "attention_bias": shape.attention_bias,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": end_token,
        "hidden_act": "silu",
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_ff or shape.d_expert,
        "max_position_embeddings": shape.context,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_parameters": rope,
        "tie_word_embeddings": shape.tied_embeddings,
        "torch_dtype": dtype,
        "vocab_size": shape.vocab_size,
        **({} if shape.latent_attention else {"head_dim": shape.head_dim}),
        # The name that older releases of `transformers` and llama.cpp read.
        **({"rope_scaling": {**rope, "type": shape.rope_scaling.kind}} if shape.rope_scaling else {}),
    }
