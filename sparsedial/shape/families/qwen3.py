"""Qwen3: dense, norms on each head's queries and keys, a window from one layer on."""

from __future__ import annotations

from sparsedial.shape.families.family import Family
from sparsedial.shape.hugging_face import core, limits, names, window

QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    defaults={
        **core.DEFAULTS,
        **window.DEFAULTS,
        "vocab_size": 151_936,
        "hidden_size": 4096,
        "intermediate_size": 22_016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 32_768,
        "max_window_layers": 28,
    },
    only=core.ONLY,
    read=lambda config: {"qk_norm": "head", **window.read_windows(config)},
    written=window.written_windows,
    limits=(
        *limits.DENSE,
        limits.GROUPED,
        limits.only("qk_norm", "head", reason="it norms each head's queries and keys"),
        limits.OUTPUT_BIAS,
    ),
    tensors=(*names.TRUNK, *names.PROJECTIONS, *names.NORMS, *names.DENSE, *names.PREDICTION),
)
