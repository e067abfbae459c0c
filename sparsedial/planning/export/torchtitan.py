"""A plan for torchtitan: a Python module with a function that returns a whole `Trainer.Config`."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

from sparsedial.planning.export.exported import Exported, require_exportable
from sparsedial.planning.export.schedule import BALANCE_RATE, Schedule, schedule
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.shape.shape import Shape
from sparsedial.units import human_count

VERSION = "torchtitan at commit b5bcd76c66d0 (2026-08-21)"


def torchtitan(shape: Shape, recipe: Mapping[str, Any]) -> Exported:
    """A module that builds the shape of torchtitan's Qwen3 blocks and trains it by the recipe.

    Raises: UserError for what no plan asks for.
    Source: torchtitan/config/README.md, torchtitan/models/qwen3, torchtitan/models/common
    """
    require_exportable(shape, recipe, "torchtitan")
    plan = schedule(recipe)
    missing = _missing(shape, plan)
    settings = "\n".join(f"{name} = {value!r}" for name, value in _settings(shape, recipe, plan).items())
    return Exported(
        trainer="torchtitan",
        file="torchtitan_plan.py",
        text=f'"""{_opening(shape, missing)}"""\n\n{IMPORTS}\n{YOURS}\n{settings}\n\n\n{MODULE}',
        command=f"NGPU={plan.devices} PYTHONPATH=FOLDER MODULE=torchtitan_plan CONFIG=plan ./run_train.sh",
        written_for=VERSION,
        not_expressed=missing,
    )


def _missing(shape: Shape, plan: Schedule) -> tuple[str, ...]:
    missing = [
        *([plan.note] if plan.note else []),
        f"the text and its tokenizer of at most {shape.vocab_size} tokens: TEXT and TOKENIZER in the file are yours",
        "windows across documents: attention and positions begin anew at each document",
    ]
    if shape.experts:
        missing.append("the sequence-wise balance loss and the router's z-loss: torchtitan has neither")
    if shape.routing_bias:
        missing.append(
            f"the routing bias moves by {BALANCE_RATE} in the direction of its load to the end, not in proportion to it"
        )
    return tuple(missing)


def _opening(shape: Shape, missing: tuple[str, ...]) -> str:
    sizes = f"{human_count(total_parameters(shape))} parameters, {human_count(active_parameters(shape))} active"
    bullets = "\n".join(fill(line, 100, initial_indent="* ", subsequent_indent="  ") for line in missing)
    return f"A plan of Sparsedial, {sizes}, for {VERSION}.\n\nNot expressed here:\n\n{bullets}\n"


def _settings(shape: Shape, recipe: Mapping[str, Any], plan: Schedule) -> dict[str, Any]:
    sizes = ("layers", "d_model", "heads", "kv_heads", "head_dim", "d_ff", "vocab_size", "tied_embeddings")
    sparse = ("experts", "top_k", "shared_experts", "d_expert", "gate", "normalize_gates", "routed_scaling")
    training = ("learning_rate", "weight_decay", "beta1", "beta2", "epsilon", "clip")
    wsd = recipe["schedule"] == "wsd"
    values = {
        **{name: getattr(shape, name) for name in (*sizes, "norm_eps", "rope_theta", *sparse)},
        "qk_norm": shape.qk_norm == "head",
        "balance_rate": BALANCE_RATE if shape.routing_bias else None,
        "dense_layers": [layer for layer in range(shape.layers) if not shape.is_sparse(layer)],
        "context": recipe["context"],
        "batch": plan.batch,
        "steps": plan.steps,
        "warmup_steps": plan.warmup_steps,
        "decay_share": recipe["decay_share"] if wsd else None,
        "decay": "linear" if wsd else "cosine",
        "final_share": plan.final_rate / recipe["learning_rate"],
        **{name: recipe[name] for name in training},
    }
    return {name.upper(): value for name, value in values.items()}


YOURS = """
TEXT = ("text/*.jsonl",)  # files with one JSON object a line, its "text" a document
TOKENIZER = "assets/hf/tokenizer"  # a folder with a tokenizer.json
"""

IMPORTS = """
from functools import partial

from torch.nn.init import normal_, ones_
from torchtitan.components.checkpointer import CheckpointManager
from torchtitan.components.data import (
    ConcatThenSplitPackingConfig,
    GrainDataLoader,
    IndexedJsonlSource,
    SingleDatasetConfig,
)
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.optimizer import (
    LRSchedulersContainer,
    OptimizersContainer,
    ParamGroupConfig,
    register_moe_load_balancing_hook,
)
from torchtitan.config import TrainingConfig
from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.hf_datasets.text_datasets import TextProcessor
from torchtitan.models.common import CosSinRoPE, Embedding, FeedForward, Linear, RMSNorm
from torchtitan.models.common.config_utils import (
    get_attention_config,
    make_gqa_config,
    make_moe_config,
    make_routed_experts_config,
    make_router_config,
)
from torchtitan.models.common.param_init import skip_param_init
from torchtitan.models.qwen3.model import Qwen3Model, Qwen3TransformerBlock
from torchtitan.models.qwen3.parallelize import parallelize_qwen3
from torchtitan.models.qwen3.state_dict_adapter import Qwen3StateDictAdapter
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.trainer import Trainer
""".strip()

MODULE = '''
class Adapter(Qwen3StateDictAdapter):
    """Hugging Face's names of shared experts and of the routing bias beside those of Qwen3."""

    def __init__(self, model_config, hf_assets_path):
        super().__init__(model_config, hf_assets_path)
        theirs, ours = "model.layers.{}.mlp.", "layers.{}.moe."
        for name, letter in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
            key = f"{theirs}shared_experts.{name}_proj.weight"
            self.from_hf_map[key] = f"{ours}shared_experts.{letter}.weight"
        self.from_hf_map[f"{theirs}gate.e_score_correction_bias"] = f"{ours}expert_bias_E"


def _normal(fan_in, residual=False):
    """1/sqrt(fan in), and less by 1/sqrt(2 layers) for what is added to the stream."""
    return partial(normal_, std=(fan_in * (2 * LAYERS if residual else 1)) ** -0.5)


def _linear(fan_in, fan_out, residual=False):
    return Linear.Config(in_features=fan_in, out_features=fan_out, param_init={"weight": _normal(fan_in, residual)})


def _norm(width):
    return RMSNorm.Config(normalized_shape=width, eps=NORM_EPS, param_init={"weight": ones_})


def _feed_forward(width):
    return FeedForward.Config(
        w1=_linear(D_MODEL, width), w2=_linear(width, D_MODEL, residual=True), w3=_linear(D_MODEL, width)
    )


def _attention():
    return make_gqa_config(
        dim=D_MODEL,
        n_heads=HEADS,
        n_kv_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        fuse_qkv=True,
        qk_norm=_norm(HEAD_DIM) if QK_NORM else None,
        rope=CosSinRoPE.Config(dim=HEAD_DIM, max_context_length=CONTEXT, theta=ROPE_THETA),
        inner_attention=get_attention_config("flex"),
        wqkv_param_init={"weight": _normal(D_MODEL)},
        wo_param_init={"weight": _normal(HEADS * HEAD_DIM, residual=True)},
    )


def _experts():
    return make_moe_config(
        num_experts=EXPERTS,
        router=make_router_config(
            dim=D_MODEL,
            num_experts=EXPERTS,
            top_k=TOP_K,
            score_func=GATE,
            route_norm=NORMALIZE_GATES,
            route_scale=ROUTED_SCALING,
            gate_param_init={"weight": _normal(D_MODEL)},
        ),
        routed_experts=make_routed_experts_config(
            dim=D_MODEL,
            hidden_dim=D_EXPERT,
            num_experts=EXPERTS,
            top_k=TOP_K,
            comm_backend="standard",
            param_init={
                "w1_EFD": _normal(D_MODEL),
                "w2_EDF": _normal(D_EXPERT, residual=True),
                "w3_EFD": _normal(D_MODEL),
            },
        ),
        shared_experts=_feed_forward(SHARED_EXPERTS * D_EXPERT) if SHARED_EXPERTS else None,
        load_balance_coeff=BALANCE_RATE,
    )


def _layer(dense):
    return Qwen3TransformerBlock.Config(
        attention_norm=_norm(D_MODEL),
        attention=_attention(),
        ffn_norm=_norm(D_MODEL),
        feed_forward=_feed_forward(D_FF) if dense else None,
        moe=None if dense else _experts(),
    )


def _model():
    table = {"weight": partial(normal_, std=0.5 * D_MODEL**-0.5)}
    return Qwen3Model.Config(
        vocab_size=VOCAB_SIZE,
        dim=D_MODEL,
        enable_weight_tying=TIED_EMBEDDINGS,
        tok_embeddings=Embedding.Config(
            num_embeddings=VOCAB_SIZE,
            embedding_dim=D_MODEL,
            param_init={"weight": skip_param_init} if TIED_EMBEDDINGS else table,
        ),
        layers=[_layer(index in DENSE_LAYERS) for index in range(LAYERS)],
        norm=_norm(D_MODEL),
        lm_head=Linear.Config(in_features=D_MODEL, out_features=VOCAB_SIZE, param_init=table),
    )


def _adamw(pattern, weight_decay):
    return ParamGroupConfig(
        pattern=pattern,
        optimizer_name="AdamW",
        optimizer_kwargs={"lr": LEARNING_RATE, "betas": (BETA1, BETA2), "eps": EPSILON, "weight_decay": weight_decay},
    )


def plan() -> Trainer.Config:
    """Run it in torchtitan's folder: PYTHONPATH=<this folder> MODULE=torchtitan_plan CONFIG=plan ./run_train.sh"""
    text = SingleDatasetConfig(
        source=IndexedJsonlSource.Config(patterns=TEXT),
        processor=TextProcessor.Config(),
        post_filters=(lambda sample: sample is not None,),
    )
    return Trainer.Config(
        model_spec=ModelSpec(
            name="qwen3",
            flavor="plan",
            model=_model(),
            parallelize_fn=parallelize_qwen3,
            pipelining_fn=pipeline_llm,
            post_optimizer_build_fn=register_moe_load_balancing_hook,
            state_dict_adapter=Adapter,
        ),
        hf_assets_path=TOKENIZER,
        dataloader=GrainDataLoader.Config(dataset=ConcatThenSplitPackingConfig(dataset=text)),
        loss=ChunkedLossWrapper.Config(loss_fn=CrossEntropyLoss.Config(global_vocab_size=VOCAB_SIZE)),
        optimizer=OptimizersContainer.Config(param_groups=[_adamw("norm", 0.0), _adamw(".*", WEIGHT_DECAY)]),
        lr_scheduler=LRSchedulersContainer.Config(
            warmup_steps=WARMUP_STEPS, decay_ratio=DECAY_SHARE, decay_type=DECAY, min_lr_factor=FINAL_SHARE
        ),
        training=TrainingConfig(
            max_context_length=CONTEXT,
            num_tokens_per_microbatch_per_dp_rank=CONTEXT,
            num_tokens_per_train_step=BATCH * CONTEXT,
            steps=STEPS,
            max_norm=CLIP,
            disable_cuda_graphs=EXPERTS > 0,  # --parallelism.expert_parallel_degree works without them alone
        ),
        checkpoint=CheckpointManager.Config(enable=True),
    )
'''.lstrip()
