"""Qwen2: dense, biases on queries, keys and values, a window from one layer on."""

from __future__ import annotations

from sparsedial.shape.families.family import Family
from sparsedial.shape.hugging_face import core, limits, names, window

QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    defaults={
        **core.DEFAULTS,
        **window.DEFAULTS,
        "vocab_size": 151_936,
        "hidden_size": 4096,
        "intermediate_size": 22_016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32_768,
        "max_window_layers": 28,
    },
    only={**core.ONLY, **core.ANY_BIAS},
    read=lambda config: {"attention_bias": True, **window.read_windows(config)},
    written=window.written_windows,
    limits=(*limits.DENSE, limits.GROUPED, limits.NO_NORMS, limits.BIAS),
    tensors=(*names.TRUNK, *names.PROJECTIONS, *names.BIASES, *names.DENSE, *names.PREDICTION),
)
