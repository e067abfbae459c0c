"""A plan for other trainers: Hugging Face's `config.json`, Megatron-LM's arguments, and what these cannot express."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsedial.shape.config import write_config
from sparsedial.shape.shape import Shape

BALANCE_RATE = 0.001  # of the routing bias; source: DeepSeek-V3 (arXiv 2412.19437)


def hugging_face(shape: Shape) -> dict[str, Any]:
    """The `config.json` with which `transformers` builds this shape.

    Raises: UserError where no family fits.
    """
    return write_config(shape, dtype="bfloat16")


def megatron(shape: Shape, recipe: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Arguments of Megatron-LM's `pretrain_gpt.py`, and in words what they do not express.

    Source: Megatron-LM's documentation of its arguments, Megatron Core MoE
    """
    arguments: dict[str, Any] = {
        "num-layers": shape.layers,
        "hidden-size": shape.d_model,
        "num-attention-heads": shape.heads,
        "kv-channels": shape.head_dim,
        "ffn-hidden-size": shape.d_ff or shape.d_expert,
        "seq-length": recipe["context"],
        "max-position-embeddings": shape.context,
        "vocab-size": shape.vocab_size,
        "position-embedding-type": "rope",
        "rotary-base": int(shape.rope_theta),
        "normalization": "RMSNorm",
        "norm-epsilon": shape.norm_eps,
        "swiglu": True,
        "disable-bias-linear": True,
        "qk-layernorm": shape.qk_norm == "head",
        "untie-embeddings-and-output-weights": not shape.tied_embeddings,
        "group-query-attention": shape.kv_heads != shape.heads,
        "global-batch-size": recipe["batch"],
        "train-iters": recipe["steps"],
        "lr": recipe["learning_rate"],
        "lr-decay-style": "WSD",
        "bf16": True,
    }
    if shape.kv_heads != shape.heads:
        arguments["num-query-groups"] = shape.kv_heads
    missing = ["the vocabulary is padded to a multiple of --make-vocab-size-divisible-by"]
    if shape.experts:
        arguments |= _sparse(shape)
        missing.append("the sequence-wise balance loss is Megatron's own definition")
    return _words(arguments), missing


def _sparse(shape: Shape) -> dict[str, Any]:
    layers = [int(layer >= shape.dense_layers) for layer in range(shape.layers)]
    return {
        "num-experts": shape.experts,
        "moe-router-topk": shape.top_k,
        "moe-ffn-hidden-size": shape.d_expert,
        "moe-shared-expert-intermediate-size": shape.shared_experts * shape.d_expert or None,
        "moe-layer-freq": f"({layers})".replace(" ", "") if shape.dense_layers else None,
        "moe-router-score-function": shape.gate,
        "moe-router-topk-scaling-factor": shape.routed_scaling,
        "moe-router-enable-expert-bias": shape.routing_bias,
        "moe-router-bias-update-rate": BALANCE_RATE if shape.routing_bias else None,
        "moe-router-load-balancing-type": "seq_aux_loss",
        "moe-aux-loss-coeff": 1e-4,
        "moe-router-dtype": "fp32",
        "moe-grouped-gemm": True,
    }


def _words(arguments: Mapping[str, Any]) -> list[str]:
    """`--name value`; a name alone where it is true, nothing where it is false or None."""
    words = []
    for name, value in arguments.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not False and value is not None:
            words += [f"--{name}", str(value)]
    return words
