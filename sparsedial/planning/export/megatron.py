"""A plan for Megatron-LM: arguments of its `pretrain_gpt.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsedial.errors import UserError
from sparsedial.planning.export.exported import Exported, require_exportable
from sparsedial.planning.export.schedule import BALANCE_RATE, Schedule, schedule
from sparsedial.records.recipe import Recipe
from sparsedial.shape.shape import Shape

VERSION = "Megatron-LM at commit d98e8a64ddf3 (2026-08-22, core 0.20)"


def megatron(shape: Shape, recipe: Recipe, devices: int = 1) -> Exported:
    """Arguments that build the shape and train it by the recipe, one per line.

    Raises: UserError for what no plan contains, and for sigmoid gates that do not sum to one.
    Source: megatron/training/arguments.py and the configuration classes behind it
    """
    require_exportable(shape, recipe, "Megatron-LM")
    if shape.experts and shape.gate == "sigmoid" and not shape.normalize_gates:
        raise UserError("export: Megatron-LM makes sigmoid gates sum to one, but normalize_gates=False")
    plan = schedule(recipe, devices)
    arguments = _dense(shape) | (_sparse(shape, recipe) if shape.experts else {}) | _training(shape, recipe, plan)
    return Exported(
        trainer="Megatron-LM",
        file="megatron.args",
        text="".join(f"{' '.join(words)}\n" for words in _words(arguments)),
        command=f"torchrun --nproc-per-node {plan.devices} pretrain_gpt.py $(cat FOLDER/megatron.args) --data-path TEXT"
        " --tokenizer-type HuggingFaceTokenizer --tokenizer-model TOKENIZER --save WEIGHTS",
        written_for=VERSION,
        not_expressed=_missing(shape, plan),
    )


def _dense(shape: Shape) -> dict[str, Any]:
    grouped = shape.kv_heads != shape.heads
    return {
        "num-layers": shape.layers,
        "hidden-size": shape.d_model,
        "num-attention-heads": shape.heads,
        "group-query-attention": grouped,
        "num-query-groups": shape.kv_heads if grouped else None,
        "kv-channels": shape.head_dim,
        "ffn-hidden-size": shape.d_ff or shape.d_expert,
        "swiglu": True,
        "disable-bias-linear": True,
        "normalization": "RMSNorm",
        "norm-epsilon": shape.norm_eps,
        "qk-layernorm": shape.qk_norm == "head",
        "position-embedding-type": "rope",
        "rotary-base": int(shape.rope_theta),
        "max-position-embeddings": shape.context,
        "vocab-size": shape.vocab_size,
        "padded-vocab-size": shape.vocab_size,
        "untie-embeddings-and-output-weights": not shape.tied_embeddings,
    }


def _sparse(shape: Shape, recipe: Recipe) -> dict[str, Any]:
    sparse = [int(shape.is_sparse(layer)) for layer in range(shape.layers)]
    return {
        "num-experts": shape.experts,
        "moe-router-topk": shape.top_k,
        "moe-ffn-hidden-size": shape.d_expert,
        "moe-shared-expert-intermediate-size": shape.shared_experts * shape.d_expert or None,
        "moe-layer-freq": None if all(sparse) else f"({sparse})".replace(" ", ""),
        "moe-router-score-function": shape.gate,
        "moe-router-pre-softmax": shape.gate == "softmax" and (not shape.normalize_gates or shape.top_k == 1),
        "moe-router-topk-scaling-factor": shape.routed_scaling,
        "moe-router-enable-expert-bias": shape.routing_bias,
        "moe-router-bias-update-rate": BALANCE_RATE if shape.routing_bias else None,
        "moe-router-load-balancing-type": "seq_aux_loss",
        "moe-aux-loss-coeff": recipe.balance_weight,
        "moe-z-loss-coeff": recipe.z_loss_weight,
        "moe-router-dtype": "fp32",
        "moe-grouped-gemm": True,
    }


def _training(shape: Shape, recipe: Recipe, plan: Schedule) -> dict[str, Any]:
    wsd = recipe.schedule == "wsd"
    return {
        "seq-length": recipe.context,
        "micro-batch-size": 1,
        "global-batch-size": plan.batch,
        "train-iters": plan.steps,
        "lr": recipe.learning_rate,
        "min-lr": plan.final_rate,
        "lr-warmup-iters": plan.warmup_steps,
        "lr-decay-style": "WSD" if wsd else "cosine",
        "lr-wsd-decay-style": "linear" if wsd else None,
        "lr-wsd-decay-iters": plan.decay_steps if wsd else None,
        "weight-decay": recipe.weight_decay,
        "adam-beta1": recipe.beta1,
        "adam-beta2": recipe.beta2,
        "adam-eps": recipe.epsilon,
        "clip-grad": recipe.clip,
        "hidden-dropout": 0.0,
        "attention-dropout": 0.0,
        "init-method-std": float(f"{shape.d_model**-0.5:.4g}"),
        "bf16": True,
        "save-interval": 500,  # as in torchtitan; without one a run fails at its end
    }


def _missing(shape: Shape, plan: Schedule) -> tuple[str, ...]:
    missing = [
        *plan.notes,
        "the text (prepared by its tools/preprocess_data.py), a tokenizer and a folder for weights: give your own",
        "the spread of initial weights by the width of each matrix: there is one --init-method-std for all",
        "the first step of the warm-up: Megatron-LM's begins with a learning rate of 0",
    ]
    if shape.experts:
        missing.append("the balance loss counts the experts with the best scores, not those chosen with the bias")
    if shape.routing_bias:
        missing.append(
            f"the routing bias moves by {BALANCE_RATE} up or down throughout, not in proportion to the imbalance"
        )
    if shape.top_k == 1 and shape.normalize_gates:
        missing.append("with one expert per token its output is multiplied by its score, not by one")
    return tuple(missing)


def _words(arguments: Mapping[str, Any]) -> list[list[str]]:
    """`--name value`; only the name for true, nothing for false or None."""
    given = {name: value for name, value in arguments.items() if value is not None and value is not False}
    return [[f"--{name}"] if value is True else [f"--{name}", str(value)] for name, value in given.items()]
