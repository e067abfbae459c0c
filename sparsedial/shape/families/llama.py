"""Llama: dense, grouped queries, no norms on queries and keys."""

from __future__ import annotations

from sparsedial.shape.families.family import Family
from sparsedial.shape.hugging_face import core, limits, names

LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    defaults={
        **core.DEFAULTS,
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
    },
    only=core.ONLY_WHOLE,
    read=lambda config: {},
    written=lambda shape: {},
    limits=(
        *limits.DENSE,
        limits.GROUPED,
        limits.NO_NORMS,
        limits.NO_WINDOW,
        limits.OUTPUT_BIAS,
        limits.DIVIDED,
    ),
    tensors=(*names.TRUNK, *names.PROJECTIONS, *names.DENSE, *names.PREDICTION),
)
