"""Counts against known numbers, against the models that `transformers` builds, and against PyTorch's FLOP counter."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from sparsedial.errors import UserError
from sparsedial.shape.config import read_config, write_config
from sparsedial.shape.counts import active_parameters, forward_flops_per_token, sparsity_of, total_parameters
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.published import PUBLISHED, find_shape
from sparsedial.shape.shape import Shape

CONFIGS = ("deepseek-v3", "kimi-k2-instruct", "mixtral-8x7b-v0.1", "olmoe-1b-7b-0125-instruct", "qwen3-0.6b-dense",
           "qwen3-30b-a3b", "qwen3-8b-dense")  # fmt: skip
OTHERS = ("gpt-oss-20b", "minimax-m2.5", "qwen3-next-80b-a3b")
SPARSE = Ladder(vocab_size=64, context=16).shape(16, 8)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("deepseek-v3", 671_026_404_352),  # 671.03 B without the 14,848 values of the routing bias, a buffer
        ("deepseek-v2", 235_741_434_880),
        ("deepseek-v2-lite", 15_706_484_224),
        ("mixtral-8x7b", 46_702_792_704),
        ("olmoe-1b-7b", 6_919_161_856),
        ("qwen3-30b-a3b", 30_532_122_624),
        ("qwen3-8b", 8_190_735_360),
        ("llama-3-8b", 8_030_261_248),
        ("llama-2-7b", 6_738_415_616),
    ],
)
def test_published_models_have_their_published_size(name, total):
    assert total_parameters(PUBLISHED[name]) == total


@pytest.mark.parametrize(
    ("name", "billions"), [("deepseek-v3", 37), ("mixtral-8x7b", 12.9), ("olmoe-1b-7b", 1.3), ("qwen3-30b-a3b", 3.3)]
)
def test_published_models_have_their_published_active_size(name, billions):
    assert active_parameters(PUBLISHED[name]) / 1e9 == pytest.approx(billions, rel=0.02)


@pytest.mark.parametrize("folder", CONFIGS)
def test_counts_equal_the_model_that_transformers_builds(shared_data: Path, tmp_path: Path, folder):
    config = json.loads((shared_data / "configs" / folder / "config.json").read_text())
    total = total_parameters(read_config(config))
    if config["model_type"] == "kimi_k2":  # a DeepSeek-V3 whose file asks for code from the hub
        config = {key: value for key, value in config.items() if key != "auto_map"} | {"model_type": "deepseek_v3"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert total == _built(tmp_path / "config.json")[1]


RELEASED = {  # the fields of a config.json that are not their family's defaults, and the published size
    "Mistral-7B-v0.1": ({"model_type": "mistral", "max_position_embeddings": 32_768}, 7_241_732_096),
    "Qwen2.5-7B": (
        {
            "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
            "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152_064,
        },
        7_615_616_512,
    ),
    "Qwen1.5-MoE-A2.7B": ({"model_type": "qwen2_moe"}, 14_315_784_192),
    "GLM-4.5-Air": (
        {"model_type": "glm4_moe", "attention_bias": True, "head_dim": 128, "num_nextn_predict_layers": 1},
        106_852_245_504,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_released_models_have_the_size_that_transformers_builds(tmp_path: Path, name):
    config, published = RELEASED[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert _built(tmp_path / "config.json") == (published, published)


def _built(path: Path) -> tuple[int, int]:
    """Our count, and the parameters of the model on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(path))
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about dtypes and rotary scaling, which change no count
        model = AutoModelForCausalLM.from_config(config)
    return total_parameters(read_config(path)), sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["deepseek-v2", "deepseek-v2-lite", "llama-3-8b", "mixtral-8x22b"])
def test_what_we_write_is_what_transformers_builds(tmp_path: Path, name):
    shape = PUBLISHED[name]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(write_config(shape)))
    total, expected = _built(path)
    assert total == expected == total_parameters(shape)


@pytest.mark.parametrize("folder", OTHERS)
def test_another_family_is_refused_by_name(shared_data: Path, folder):
    path = shared_data / "configs" / folder / "config.json"
    kind = json.loads(path.read_text())["model_type"]
    with pytest.raises(UserError, match=kind):
        read_config(path)


@pytest.mark.parametrize("name", [*PUBLISHED])
def test_a_written_config_reads_back_as_the_same_shape(name):
    assert read_config(write_config(PUBLISHED[name])) == PUBLISHED[name]


@pytest.mark.parametrize(
    "shape", [SPARSE, Ladder(vocab_size=64, context=16).shape(16, 0), replace(SPARSE, shared_gate=True)]
)
def test_flops_equal_pytorchs_counter(shape: Shape):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from sparsedial.kernels import native
    from sparsedial.model.transformer import initialise

    model = initialise(shape, 0)
    for layer in model.sparse_feed_forwards:
        layer.kernel = "reference"
    ids = torch.randint(64, (2, 16))
    with pytest.MonkeyPatch.context() as patch, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        patch.setattr(native, "module", None)  # the counter sees PyTorch's operations alone
        model(ids)
    assert counter.get_total_flops() == forward_flops_per_token(shape, 16) * 32


def test_counts_equal_the_model_that_we_build():
    from sparsedial.model.transformer import Transformer

    for shape in (SPARSE, Ladder(vocab_size=64, context=16).shape(96, 0), replace(SPARSE, dense_layers=1, d_ff=40)):
        assert sum(parameter.numel() for parameter in Transformer(shape).parameters()) == total_parameters(shape)


def test_a_sparse_twin_costs_its_dense_twin_and_a_router():
    dense = Ladder(vocab_size=64, context=16).shape(16, 0)
    router = 2 * dense.layers * dense.d_model * SPARSE.experts
    assert forward_flops_per_token(SPARSE, 16) == forward_flops_per_token(dense, 16) + router


def test_the_three_notions_of_sparsity_stand_side_by_side():
    sparsity = sparsity_of(PUBLISHED["deepseek-v3"])
    assert sparsity["experts"] == 1 - 8 / 256
    assert sparsity["activation_ratio"] == 9 / 257
    assert sparsity["parameters"] == pytest.approx(1 - 37.55 / 671.03, abs=1e-4)
    assert sparsity_of(PUBLISHED["llama-3-8b"]) == {"experts": 0.0, "parameters": 0.0, "activation_ratio": 1.0}


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UserError) as error:
        find_shape("deepsek-v3")
    assert error.value.hint == "did you mean 'deepseek-v3'?"


def test_a_name_of_the_hub_is_known_by_its_last_part():
    assert find_shape("deepseek-ai/DeepSeek-V3")[1] == PUBLISHED["deepseek-v3"]
