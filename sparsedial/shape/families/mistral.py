"""Mistral: Llama with heads of any width, and a window for all layers or none."""

from __future__ import annotations

from sparsedial.shape.families.family import Family
from sparsedial.shape.hugging_face import core, limits, names

MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    defaults={
        **core.DEFAULTS,
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    },
    only=core.ONLY,
    read=lambda config: {"window": config.whole("sliding_window", 0)},
    written=lambda shape: {"sliding_window": shape.window or None},
    limits=(*limits.DENSE, limits.GROUPED, limits.NO_NORMS, limits.ONE_WINDOW, limits.NO_BIAS),
    tensors=(*names.TRUNK, *names.PROJECTIONS, *names.DENSE, *names.PREDICTION),
)
