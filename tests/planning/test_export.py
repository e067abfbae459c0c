"""A plan comes back from what is written for other trainers, in names that those trainers know.

Their names are listed here, so that this runs without them.
"""

from __future__ import annotations

import ast
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.planning.candidates import candidates
from sparsedial.planning.export.exports import EXPORTS
from sparsedial.planning.export.hugging_face import hugging_face
from sparsedial.planning.export.megatron import megatron
from sparsedial.planning.export.schedule import schedule
from sparsedial.planning.export.torchtitan import torchtitan
from sparsedial.records.recipe import Recipe
from sparsedial.shape.config import read_config
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape
from sparsedial.verbs.plan.plan import PlanSettings
from sparsedial.verbs.plan.plan import plan as make_plan

# Fields of torchtitan's configurations and parameters of its helpers that the export may use.
# Source: torchtitan at commit b5bcd76c66d0 (2026-08-21), the signatures in torchtitan/
TORCHTITAN = {
    "CheckpointManager.Config": {"enable", "interval"},
    "ChunkedLossWrapper.Config": {"loss_fn"},
    "ConcatThenSplitPackingConfig": {"dataset"},
    "CosSinRoPE.Config": {"dim", "max_context_length", "theta"},
    "CrossEntropyLoss.Config": {"global_vocab_size"},
    "Embedding.Config": {"num_embeddings", "embedding_dim", "param_init"},
    "FeedForward.Config": {"w1", "w2", "w3"},
    "GrainDataLoader.Config": {"dataset", "seed", "shuffle", "repeat"},
    "IndexedJsonlSource.Config": {"patterns"},
    "LRSchedulersContainer.Config": {"warmup_steps", "total_steps", "decay_ratio", "decay_type", "min_lr_factor"},
    "Linear.Config": {"in_features", "out_features", "bias", "param_init"},
    "ModelSpec": {
        "name", "flavor", "model", "parallelize_fn", "pipelining_fn", "post_optimizer_build_fn", "state_dict_adapter",
    },
    "OptimizersContainer.Config": {"param_groups", "implementation"},
    "ParamGroupConfig": {"pattern", "optimizer_name", "optimizer_kwargs"},
    "Qwen3Model.Config": {"dim", "vocab_size", "lm_head", "tok_embeddings", "norm", "layers", "enable_weight_tying"},
    "Qwen3StateDictAdapter": {"model_config", "hf_assets_path"},
    "Qwen3TransformerBlock.Config": {"attention", "feed_forward", "moe", "attention_norm", "ffn_norm"},
    "RMSNorm.Config": {"normalized_shape", "eps", "elementwise_affine", "param_init"},
    "SingleDatasetConfig": {"source", "pre_filters", "processor", "post_filters"},
    "TextProcessor.Config": {"text_fn"},
    "Trainer.Config": {
        "model_spec", "hf_assets_path", "dataloader", "optimizer", "lr_scheduler", "training", "parallelism",
        "checkpoint", "loss",
    },
    "TrainingConfig": {
        "num_tokens_per_microbatch_per_dp_rank", "num_tokens_per_train_step", "max_context_length", "max_norm", "steps",
        "disable_cuda_graphs",
    },
    "get_attention_config": {"backend"},
    "make_gqa_config": {
        "dim", "n_heads", "n_kv_heads", "head_dim", "fuse_qkv", "qk_norm", "rope", "inner_attention",
        "wqkv_param_init", "wo_param_init",
    },
    "make_moe_config": {"num_experts", "router", "routed_experts", "shared_experts", "load_balance_coeff"},
    "make_routed_experts_config": {"dim", "hidden_dim", "num_experts", "top_k", "comm_backend", "param_init"},
    "make_router_config": {
        "dim", "num_experts", "top_k", "score_func", "route_norm", "route_scale", "gate_param_init",
    },
    "parallelize_qwen3": set(),
    "pipeline_llm": set(),
    "register_moe_load_balancing_hook": set(),
    "skip_param_init": set(),
}  # fmt: skip
TORCHTITAN_CHOICES = {"GATE": {"sigmoid", "softmax"}, "DECAY": {"linear", "sqrt", "cosine"}}

# Megatron-LM's arguments that the export may use: how a value is read, its choices, or None for a switch.
# Source: Megatron-LM at commit d98e8a64ddf3 (2026-08-22, core 0.20), megatron/training/arguments.py
MEGATRON: dict[str, Any] = {
    **dict.fromkeys(
        (
            "--num-layers", "--hidden-size", "--num-attention-heads", "--num-query-groups", "--kv-channels",
            "--ffn-hidden-size", "--rotary-base", "--max-position-embeddings", "--vocab-size", "--padded-vocab-size",
            "--num-experts", "--moe-router-topk", "--moe-ffn-hidden-size", "--moe-shared-expert-intermediate-size",
            "--seq-length", "--micro-batch-size", "--global-batch-size", "--train-iters", "--lr-warmup-iters",
            "--lr-wsd-decay-iters", "--save-interval",
        ),
        int,
    ),
    **dict.fromkeys(
        (
            "--norm-epsilon", "--moe-router-topk-scaling-factor", "--moe-router-bias-update-rate",
            "--moe-aux-loss-coeff", "--moe-z-loss-coeff", "--lr", "--min-lr", "--weight-decay", "--adam-beta1",
            "--adam-beta2", "--adam-eps", "--clip-grad", "--hidden-dropout", "--attention-dropout",
            "--init-method-std",
        ),
        float,
    ),
    **dict.fromkeys(
        (
            "--group-query-attention", "--swiglu", "--disable-bias-linear", "--qk-layernorm",
            "--untie-embeddings-and-output-weights", "--moe-router-enable-expert-bias", "--moe-router-pre-softmax",
            "--moe-grouped-gemm", "--bf16",
        )
    ),
    "--moe-layer-freq": ast.literal_eval,
    "--normalization": {"LayerNorm", "RMSNorm"},
    "--position-embedding-type": {"learned_absolute", "rope", "yarn", "mrope", "relative", "none"},
    "--moe-router-score-function": {"softmax", "sigmoid", "sqrtsoftplus"},
    "--moe-router-load-balancing-type": {
        "aux_loss", "seq_aux_loss", "global_aux_loss", "sinkhorn", "quantile_balancing", "none",
    },
    "--moe-router-dtype": {"fp32", "fp64"},
    "--lr-decay-style": {"constant", "linear", "cosine", "inverse-square-root", "WSD"},
    "--lr-wsd-decay-style": {"exponential", "linear", "cosine", "minus_sqrt"},
}  # fmt: skip

RECIPE = Recipe(learning_rate=1e-3, steps=200, batch=8, context=64)
COMMON: dict[str, Any] = {
    "layers": 3, "d_model": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "vocab_size": 200, "context": 64,
    "qk_norm": "head",
}  # fmt: skip
ROUTED: dict[str, Any] = {"experts": 8, "top_k": 2, "d_expert": 32, "gate": "sigmoid", "routing_bias": True}
SHAPES = {
    "dense": Shape(**COMMON, d_ff=96, tied_embeddings=True),
    "dense without norms of heads": Shape(**{**COMMON, "qk_norm": "none"}, d_ff=96),
    "sparse": Shape(**COMMON, **ROUTED, d_ff=0, shared_experts=1),
    "a first dense layer": Shape(**COMMON, **ROUTED, d_ff=96, shared_experts=1, dense_layers=1),
    "softmax gates": Shape(**COMMON, d_ff=0, experts=8, top_k=2, d_expert=32),
    "of a study": Ladder(vocab_size=200, context=64).shape(64, 8),
    "of a plan": next(shape for shape in candidates(vocab_size=200, context=64) if shape.experts),
}
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


def unknown_words(text: str) -> list[str]:
    """Arguments that Megatron-LM does not know, or whose value it cannot read."""
    unknown = []
    for name, *values in (line.split() for line in text.splitlines()):
        kind = MEGATRON.get(name, name)
        if kind == name or len(values) != (kind is not None):
            unknown.append(name)
        elif callable(kind):
            kind(values[0])  # raises for a value of another type
        elif kind is not None and values[0] not in kind:
            unknown.append(f"{name} {values[0]}")
    return unknown


def unknown_names(text: str) -> list[str]:
    """What a module takes from torchtitan or passes to it that torchtitan does not know."""
    tree = ast.parse(text)
    imported = {
        item.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("torchtitan")
        for item in node.names
    }
    unknown = [name for name in imported if not {name, f"{name}.Config"} & set(TORCHTITAN)]
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        if name.split(".")[0] in imported:
            known = TORCHTITAN.get(name)
            unknown += (
                [name] if known is None else [f"{name}({word.arg})" for word in call.keywords if word.arg not in known]
            )
    return sorted(unknown)


def constants(text: str) -> dict[str, Any]:
    """The settings at the top of an exported module."""
    return {
        ast.unparse(node.targets[0]): ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign)
    }


def written(text: str) -> dict[str, str]:
    """Megatron-LM's arguments by name, '' for a switch."""
    return {name: " ".join(values) for name, *values in (line.split() for line in text.splitlines())}


def recipe(**changes: Any) -> Recipe:
    return replace(RECIPE, **changes)


@EVERY_SHAPE
def test_the_config_is_read_back_as_the_same_shape(shape):
    again = read_config(json.loads(hugging_face(shape, recipe()).text))
    assert total_parameters(again) == total_parameters(shape)
    assert (again.experts, again.top_k, again.d_expert) == (shape.experts, shape.top_k, shape.d_expert)


@EVERY_SHAPE
def test_transformers_loads_the_config_and_builds_as_many_parameters(shape, tmp_path: Path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(hugging_face(shape, recipe()).text)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(tmp_path))
    assert sum(parameter.numel() for parameter in model.parameters()) == total_parameters(shape)


@EVERY_SHAPE
@pytest.mark.parametrize("plan", [recipe(), recipe(schedule="cosine", warmup_steps=7)], ids=["wsd", "cosine"])
def test_megatron_knows_every_argument(shape, plan):
    assert not unknown_words(megatron(shape, plan).text)


@EVERY_SHAPE
@pytest.mark.parametrize("plan", [recipe(), recipe(schedule="cosine", warmup_steps=7)], ids=["wsd", "cosine"])
def test_torchtitan_knows_every_name(shape, plan):
    text = torchtitan(shape, plan).text
    assert not unknown_names(text)
    assert all(constants(text)[name] in choices for name, choices in TORCHTITAN_CHOICES.items())


def test_a_wrong_name_or_value_would_be_found():
    text = torchtitan(SHAPES["sparse"], recipe()).text
    assert unknown_names(text.replace("n_kv_heads=", "kv_heads=")) == ["make_gqa_config(kv_heads)"]
    assert unknown_names(text.replace("TrainingConfig", "TrainConfig")) == ["TrainConfig", "TrainConfig"]
    words = megatron(SHAPES["sparse"], recipe()).text
    assert unknown_words(words.replace("--num-layers", "--layers")) == ["--layers"]
    assert unknown_words(words.replace("WSD", "wsd")) == ["--lr-decay-style wsd"]
    assert unknown_words(words.replace("--bf16", "--bf16 true")) == ["--bf16"]


def test_megatron_gets_every_size_and_every_step():
    shape = SHAPES["a first dense layer"]
    words = written(megatron(shape, recipe()).text)
    assert words["--num-layers"] == str(shape.layers)
    assert words["--num-experts"] == str(shape.experts)
    assert words["--moe-router-topk"] == str(shape.top_k)
    assert words["--moe-shared-expert-intermediate-size"] == str(shape.d_expert)
    assert words["--moe-layer-freq"] == "([0,1,1])"
    assert words["--padded-vocab-size"] == str(shape.vocab_size)
    assert words["--hidden-dropout"] == words["--attention-dropout"] == "0.0"  # theirs is 0.1 where nothing is said
    assert (words["--lr-warmup-iters"], words["--lr-wsd-decay-iters"]) == ("10", "60")


def test_a_dense_plan_names_no_experts():
    assert not any("moe" in name or "experts" in name for name in written(megatron(SHAPES["dense"], recipe()).text))
    found = constants(torchtitan(SHAPES["dense"], recipe()).text)
    assert found["DENSE_LAYERS"] == list(range(SHAPES["dense"].layers))


def test_torchtitan_gets_every_size_and_every_step():
    shape = SHAPES["a first dense layer"]
    found = constants(torchtitan(shape, recipe(batch=100)).text)
    assert all(found[name.upper()] == value for name, value in vars(shape).items() if name.upper() in found
               and name not in ("qk_norm", "dense_layers"))  # fmt: skip
    assert (found["QK_NORM"], found["DENSE_LAYERS"]) == (True, [0])
    assert (found["BATCH"], found["STEPS"]) == (96, 208)
    assert (found["WARMUP_STEPS"], found["DECAY_SHARE"]) == (10, 0.3)


@pytest.mark.parametrize("batch", [1, 7, 8, 37, 69, 1522, 4096])
@pytest.mark.parametrize("devices", [1, 6, 8, 64])
def test_devices_divide_the_batch_and_the_tokens_stay(batch, devices):
    steps = schedule(recipe(batch=batch, steps=10_000), devices)
    assert abs(steps.batch / batch - 1) <= 1 / 8
    assert steps.batch % (1 << max(0, (batch // 4).bit_length() - 1)) == 0
    assert steps.batch % steps.devices == 0
    assert steps.steps * steps.batch == pytest.approx(10_000 * batch, rel=1e-3)
    assert (steps.batch_note is None) == (steps.batch == batch)
    assert steps.devices <= min(devices, 8)
    assert any(f"{steps.devices} of the {devices} devices" in note for note in steps.notes) == (steps.devices < devices)


@pytest.mark.parametrize(("devices", "started"), [(1, 1), (4, 4), (8, 8), (16, 8)])
def test_launch_lines_start_the_devices_that_were_asked_for(devices: int, started: int, tmp_path: Path):
    settings = PlanSettings(flops=1e20, device="h100", devices=devices, max_total_parameters=1e9, export=tmp_path / "x")
    commands = {item.trainer: item.command for item in make_plan(settings).exported}
    assert f"NGPU={started} " in commands["torchtitan"]
    assert f"--nproc-per-node {started} " in commands["Megatron-LM"]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"window": 32}, "window=32"),
        ({"attention_bias": True}, "attention_bias"),
        ({"qk_norm": "full"}, "qk_norm=full"),
    ],
)
@pytest.mark.parametrize("export", [megatron, torchtitan])
def test_a_model_that_the_file_would_not_describe_is_refused(export, changes, name):
    with pytest.raises(UserError, match=name):
        export(replace(SHAPES["sparse"], **changes), recipe())
    with pytest.raises(UserError, match="optimizer=muon"):
        export(SHAPES["sparse"], recipe(optimizer="muon"))
    with pytest.raises(UserError, match="spike_sigmas=5"):
        export(SHAPES["sparse"], recipe(spike_sigmas=5.0))


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_says_how_it_is_used_for_which_version_and_what_it_lacks(name, tmp_path: Path):
    exported = EXPORTS[name](SHAPES["sparse"], recipe(), 8).record(tmp_path)
    assert str(tmp_path) in exported.command
    assert exported.trainer in exported.written_for
    assert exported.not_expressed


def test_a_command_to_copy_is_one_for_a_folder_with_a_space(tmp_path: Path):
    folder = tmp_path / "ex p"
    plan = sparsedial.plan(flops=1e12, context=32, vocab_size=300, export=folder)
    commands = {item["trainer"]: item["command"] for item in plan["exported"]}
    assert shlex.split(commands["sparsedial"])[2] == str(folder)
    assert f"PYTHONPATH='{folder}'" in commands["torchtitan"]
    assert f"$(cat '{folder}'/megatron.args)" in commands["Megatron-LM"]
    assert f"from_pretrained('{folder}')" in commands["transformers"]


def test_our_own_train_follows_the_exported_plan(tmp_path: Path, corpus: Path):
    plan = sparsedial.plan(flops=1e12, context=32, vocab_size=300, export=tmp_path)
    assert plan["exported"][0]["command"].startswith(f"sparsedial train {tmp_path}")
    said = sparsedial.train(model=str(tmp_path), text=(str(corpus),), out=tmp_path / "run", dry_run=True)
    assert said["total_parameters"] == plan["total_parameters"]
    assert said["tokens"] == plan.recipe.steps * plan.recipe.batch * 32


def test_a_dry_run_of_a_model_beyond_this_machine_counts_and_measures_nothing(tmp_path: Path, corpus: Path, capsys):
    sparsedial.plan(flops=1e21, context=32, vocab_size=300, max_total_parameters=2e11, export=tmp_path)
    words = ["train", str(tmp_path), "--text", str(corpus), "--out", str(tmp_path / "run"), "--dry-run"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "not measured: a step needs more memory than" in said
    assert "memory" in said
