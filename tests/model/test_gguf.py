"""Our folders as llama.cpp's converter takes them: what it reads, and with the converter at hand the logits.

The last test runs where LLAMA_CPP names the folder of llama.cpp's sources, with llama-cpp-python and sentencepiece:
`LLAMA_CPP=/path/to/llama.cpp python -m pytest tests/model/test_gguf.py`, with the script of docs/gguf.md.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import logging
import os
import re
import runpy
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from sparsedial.model.checkpoint import save_checkpoint
from sparsedial.shape.config import write_config
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape
from sparsedial.text.tokenizer import byte_tokenizer, train_bpe
from tests.model.shapes import FAMILIES, LATENT, V3, YARN, shaken

DOCUMENT = Path(__file__).parents[2] / "docs" / "gguf.md"
LENGTHS = (1, 7, 17, 40)
SIZES = {"vocab_size": 256, "context": 64}
CONVERTED = {
    "llama": FAMILIES["llama"],
    "llama, stretched as Llama 3.1": FAMILIES["llama, stretched as Llama 3.1"],
    "llama, stretched evenly": FAMILIES["llama, stretched evenly"],
    "qwen3": FAMILIES["qwen3"],
    "qwen3, YaRN": FAMILIES["qwen3, YaRN"],
    "qwen3, of the ladder": Ladder(**SIZES).shape(48, 0),
    "qwen2": FAMILIES["qwen2"],
    "qwen2_moe": FAMILIES["qwen2_moe"],
    "mixtral": FAMILIES["mixtral"],
    "olmoe": replace(FAMILIES["olmoe"], kv_heads=4, norm_eps=1e-5),
    "qwen3_moe": FAMILIES["qwen3_moe"],
    "glm4_moe, of the ladder": Ladder(**SIZES).shape(48, 8),
    "glm4_moe, first layer dense": FAMILIES["glm4_moe, first layer dense"],
    "glm4_moe, a token more ahead": replace(FAMILIES["glm4_moe"], mtp_layers=1),
    "deepseek_v2": Shape(**LATENT, q_lora_rank=9, normalize_gates=False, routed_scaling=16.0),
    "deepseek_v3": FAMILIES["deepseek_v3"],
    "deepseek_v3, a token more ahead": replace(FAMILIES["deepseek_v3"], mtp_layers=1),
    "deepseek_v3, groups": replace(FAMILIES["deepseek_v3"], expert_groups=4, kept_groups=2),
    "deepseek_v3, YaRN": Shape(**LATENT, **V3, q_lora_rank=9, rope_scaling=replace(YARN, mscale_all_dim=1.0)),
}
# Names that llama.cpp's tensor map or its stacking of experts knows, N for a number.
LAYER = "model.layers.N."
ATTENTION = ("q", "k", "v", "o", "q_a", "q_b", "kv_b")
KNOWN = {
    *("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"),
    *(f"{LAYER}{norm}_layernorm.weight" for norm in ("input", "post_attention")),
    *(f"{LAYER}self_attn.{name}_proj.weight" for name in ATTENTION),
    *(f"{LAYER}self_attn.{norm}.weight" for norm in ("q_norm", "k_norm", "q_a_layernorm", "kv_a_layernorm")),
    f"{LAYER}self_attn.kv_a_proj_with_mqa.weight",
    *(f"{LAYER}self_attn.{name}_proj.bias" for name in ("q", "k", "v")),
    f"{LAYER}mlp.shared_expert_gate.weight",
    *(
        f"{LAYER}mlp.{whose}{part}_proj.weight"
        for whose in ("", "experts.N.", "shared_experts.", "shared_expert.")
        for part in ("gate", "up", "down")
    ),
    *(f"{LAYER}mlp.gate.{name}" for name in ("weight", "e_score_correction_bias")),
    *(f"{LAYER}block_sparse_moe.{name}.weight" for name in ("gate", "experts.N.wN")),
    *(f"{LAYER}{name}.weight" for name in ("eh_proj", "enorm", "hnorm", "shared_head.norm", "shared_head.head")),
    f"{LAYER}embed_tokens.weight",
}
LATENT_FIELDS = {
    "kv_lora_rank": 12, "q_lora_rank": 9, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5,
    "first_k_dense_replace": 1, "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 2,
    "moe_intermediate_size": 8, "n_group": 1, "topk_group": 1,
}  # fmt: skip
# What the converter takes from a config.json; where a field is missing it mostly writes another model, in silence.
READ = {
    "llama": {"intermediate_size": 40, "head_dim": 4},
    "qwen3": {"intermediate_size": 40, "head_dim": 4, "tie_word_embeddings": True},
    "qwen2": {"intermediate_size": 40, "tie_word_embeddings": True},
    "qwen2_moe": {
        "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "norm_topk_prob": False,
        "shared_expert_intermediate_size": 16,
    },
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 8},
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 8},
    "qwen3_moe": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "head_dim": 4},
    "glm4_moe, first layer dense": {
        "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 16,
        "first_k_dense_replace": 1, "routed_scaling_factor": 2.0, "norm_topk_prob": True, "n_group": 1,
        "partial_rotary_factor": 1.0,  # without it llama.cpp turns half of the channels
    },
    "deepseek_v2": {
        **LATENT_FIELDS, "scoring_func": "softmax", "norm_topk_prob": False, "routed_scaling_factor": 16.0,
    },
    "deepseek_v3": {
        **LATENT_FIELDS, "scoring_func": "sigmoid", "norm_topk_prob": True, "routed_scaling_factor": 2.5,
    },
}  # fmt: skip


@pytest.mark.parametrize("family", CONVERTED)
def test_every_tensor_has_a_name_that_the_converter_knows(tmp_path: Path, family: str):
    save_checkpoint(shaken(CONVERTED[family]), tmp_path / "c")
    with safe_open(tmp_path / "c" / "model.safetensors", "np") as file:
        names = {re.sub(r"(?<=[.w])\d+", "N", name) for name in file.keys()}  # noqa: SIM118  # no dict
    assert names <= KNOWN


@pytest.mark.parametrize("family", READ)
def test_the_configuration_states_what_the_converter_reads(family: str):
    shape = CONVERTED[family]
    config = write_config(shape)
    common = {"rms_norm_eps": shape.norm_eps, "rope_theta": shape.rope_theta, "num_key_value_heads": shape.kv_heads}
    assert {**config, **common, **READ[family]} == config


def test_our_bpe_splits_text_as_the_pre_tokenizer_that_the_script_names(tmp_path: Path):
    """`gpt-2` in llama.cpp is the byte level with its own regular expression and nothing before it."""
    train_bpe([b"some words, some more words"] * 9, 300).save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    splits = content["pre_tokenizer"]
    assert (splits["type"], splits["add_prefix_space"], splits["use_regex"]) == ("ByteLevel", False, True)
    assert content["normalizer"] is None
    assert content["post_processor"] is None
    assert content["model"]["merges"]


def test_the_merge_that_the_script_gives_to_bytes_can_never_apply(tmp_path: Path):
    byte_tokenizer().save(tmp_path)
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    assert model["merges"] == []
    assert "\u0100" not in model["vocab"]


def script(folder: Path) -> Path:
    """The script of docs/gguf.md as a file."""
    (block,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    file = folder / "to_gguf.py"
    file.write_text(block)
    return file


@pytest.fixture
def llama_cpp(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of llama.cpp's sources, on a path that is put back."""
    place = os.environ.get("LLAMA_CPP")
    if not place:
        pytest.skip("LLAMA_CPP does not name the folder of llama.cpp's sources")
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    pytest.importorskip("sentencepiece", reason="sentencepiece, which the converter imports, is not installed")
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Path(place)


def difference(file: Path, model: torch.nn.Module) -> float:
    """The largest difference between llama.cpp's logits and ours, behind several lengths of two sequences."""
    llama: Any = importlib.import_module("llama_cpp")
    bench: Any = importlib.import_module("benchmarks.gguf")
    llama.llama_log_set(bench.SILENT, ctypes.c_void_p(0))
    loaded = llama.llama_model_load_from_file(str(file).encode(), llama.llama_model_default_params())
    assert loaded
    session = bench.Session(loaded, 2, 64, 1, False)
    ids_BS = np.random.default_rng(0).integers(1, 256, (2, max(LENGTHS)))
    largest = 0.0
    for length in LENGTHS:
        session.clear()
        theirs_BV = session.read(ids_BS[:, :length], 0)
        ours_BV = model(torch.tensor(ids_BS[:, :length]))[:, -1].numpy()
        largest = max(largest, float(np.abs(theirs_BV - ours_BV).max()))
    return largest


@pytest.mark.parametrize("family", CONVERTED)
@torch.no_grad()
def test_llama_cpp_computes_the_same_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama_cpp: Path, family: str
):
    model = shaken(replace(CONVERTED[family], **SIZES))
    save_checkpoint(model, tmp_path / "c", byte_tokenizer())
    words = ["to_gguf.py", str(llama_cpp), str(tmp_path / "c"), "--outfile", str(tmp_path / "c.gguf")]
    monkeypatch.setattr(sys, "argv", [*words, "--outtype", "f32"])
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(script(tmp_path)), run_name="__main__")
    logging.disable(logging.NOTSET)
    largest = difference(tmp_path / "c.gguf", model)
    print(f"{family}: {largest:.1e}")
    assert largest < 1e-5
