"""A `config.json` means here what it means to `transformers`: fields left out, two names for one thing, stretches."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparsedial.errors import UserError
from sparsedial.shape.config import BY_MODEL_TYPE, fitting_family, read_config, write_config
from sparsedial.shape.families.registry import FAMILIES
from sparsedial.shape.shape import RopeScaling, Shape
from tests.model.shapes import FAMILIES as SHAPES

ONE_OF_EACH = {name: next(shape for shape in SHAPES.values() if fitting_family(shape) == name) for name in FAMILIES}
LLAMA = SHAPES["llama"]
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8}


def filled(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration with every field that `transformers` takes for granted."""
    from transformers import AutoConfig

    (folder / "config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoConfig.from_pretrained(folder).to_dict()


def told(config: dict[str, Any]) -> Shape | str:
    try:
        return read_config(config)
    except UserError as error:
        return error.problem


@pytest.mark.parametrize("family", FAMILIES)
def test_a_field_left_out_is_what_transformers_takes_it_for(family, tmp_path: Path):
    shape = replace(ONE_OF_EACH[family], d_model=32)  # which their own number of heads divides too
    config = write_config(replace(shape, head_dim=shape.head_dim if shape.latent_attention else 8))
    for field in (*config, ("rope_theta", "rope_parameters")):
        rest = {name: value for name, value in config.items() if name != field and name not in field}
        if "model_type" in rest:
            assert told(rest) == told(filled(rest, tmp_path)), field


@pytest.mark.parametrize("more", [{}, {"use_sliding_window": True, "max_window_layers": 0}])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_bare_model_type_is_the_model_that_transformers_makes_of_it(family, more, tmp_path: Path):
    bare = {"model_type": family, "num_experts_per_tok": 6, "partial_rotary_factor": 1.0, **more}
    assert isinstance(told(bare), Shape)
    assert told(bare) == told(filled(bare, tmp_path))


@pytest.mark.parametrize(
    ("family", "values"),
    [
        ("mixtral", {"rope_theta": 1e6, "norm_eps": 1e-5}),
        ("olmoe", {"rope_theta": 1e4, "norm_eps": 1e-5}),
        ("deepseek_v3", {"routed_scaling": 2.5, "kept_groups": 4}),
    ],
)
def test_older_files_mean_their_familys_defaults(family, values):
    shape = replace(ONE_OF_EACH[family], expert_groups=4 if family == "deepseek_v3" else 1)
    config = write_config(shape)
    for field in ("rope_theta", "rope_parameters", "rms_norm_eps", "routed_scaling_factor", "topk_group"):
        config.pop(field, None)
    assert read_config(config) == replace(shape, **values)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_theta": 5e5, "rope_parameters": {"rope_type": "default", "rope_theta": 2e4}},
        {"rope_theta": 5e5, "rope_parameters": {"rope_type": "default"}},
        {"rope_theta": 5e5, "rope_parameters": None},
        {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 2e4}},
        {"rope_parameters": YARN | {"beta_fast": 0, "beta_slow": 0}},
        {"rope_parameters": YARN | {"beta_fast": 8.0, "truncate": False, "attention_factor": 1.5}},
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}},
        {"original_max_position_embeddings": 16, "rope_parameters": YARN},
    ],
)
def test_rotary_fields_that_disagree_are_taken_as_transformers_takes_them(changes, tmp_path: Path):
    import torch
    from transformers import AutoConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    from sparsedial.model.rotary import rotary_table

    config = {**write_config(LLAMA), **changes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = LlamaRotaryEmbedding(AutoConfig.from_pretrained(tmp_path))
    cosines, sines = theirs(torch.zeros(1), torch.arange(32)[None])
    ours = rotary_table(read_config(config), 32)
    torch.testing.assert_close(ours[0], cosines[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours[1][:, 2:], sines[0][:, 2:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["n_routed_experts", "num_experts", "num_local_experts"])
@pytest.mark.parametrize("family", [name for name in FAMILIES if FAMILIES[name].experts])
def test_experts_are_counted_under_the_name_of_any_release(family, name):
    config = write_config(ONE_OF_EACH[family])
    config[name] = config.pop(FAMILIES[family].experts)
    assert read_config(config) == ONE_OF_EACH[family]


@pytest.mark.parametrize(("one", "other"), [("num_experts", "num_local_experts"), ("n_routed_experts", "num_experts")])
def test_two_names_of_one_count_may_agree_and_not_contradict(one, other):
    config = write_config(ONE_OF_EACH["qwen3_moe"])
    experts = config.pop("num_experts")
    assert read_config({**config, one: experts, other: experts}) == read_config({**config, one: None, other: experts})
    with pytest.raises(UserError, match=f"{one}=8 and {other}=16 are two names"):
        read_config({**config, one: experts, other: 16})


@pytest.mark.parametrize("heads", [None, 1, 3, 128, "left out"])
@pytest.mark.parametrize("family", ["deepseek_v2", "deepseek_v3"])
def test_latent_attention_has_no_use_for_a_number_of_key_value_heads(family, heads):
    config = write_config(ONE_OF_EACH[family]) | {"num_key_value_heads": heads}
    if heads == "left out":
        del config["num_key_value_heads"]
    assert read_config(config) == ONE_OF_EACH[family]


@pytest.mark.parametrize("kind", ["qwen3_next", "phimoe", "mimo", "llama4", "deepseek_v32", "mistral3", "gemma"])
def test_another_model_type_gets_the_list_and_no_name_that_looks_like_it(kind):
    with pytest.raises(UserError, match=f"model_type '{kind}' is not supported") as error:
        read_config({**write_config(LLAMA), "model_type": kind})
    assert error.value.hint == f"supported are {', '.join(BY_MODEL_TYPE)}"


@pytest.mark.parametrize("kind", ["DeepseekV3", "deepseek-v3", "Qwen3-MoE", "LLaMA"])
def test_a_model_type_of_the_same_letters_is_named(kind):
    with pytest.raises(UserError) as error:
        read_config({**write_config(LLAMA), "model_type": kind})
    assert error.value.hint is not None
    assert error.value.hint.startswith("did you mean '")


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_of_multi_token_prediction_are_written_for_every_family(family):
    shape = replace(ONE_OF_EACH[family], mtp_layers=2)
    config = write_config(shape)
    assert read_config(config) == shape
    config["num_mtp_layers"] = config.pop("num_nextn_predict_layers")
    assert read_config(config) == shape


@pytest.mark.parametrize("kind", ["yarn", "llama3", "linear"])
@pytest.mark.parametrize("family", ["llama", "deepseek_v2", "deepseek_v3"])
def test_a_stretch_of_any_kind_comes_back_whole(family, kind):
    scaling = RopeScaling(kind=kind, factor=4.0, original_context=8, mscale=0.5, mscale_all_dim=0.7)
    shape = replace(ONE_OF_EACH[family], rope_scaling=scaling)
    assert read_config(write_config(shape)) == shape


@pytest.mark.parametrize(
    ("shape", "family"),
    [
        (replace(ONE_OF_EACH["glm4_moe"], attention_bias=True), "glm4_moe"),
        (replace(LLAMA, attention_bias=True), "qwen2"),  # Llama has one on the output too
        (replace(ONE_OF_EACH["qwen3"], attention_bias=True), None),  # theirs has one on the output too
        (replace(ONE_OF_EACH["mixtral"], attention_bias=True), None),  # theirs has none
        (replace(ONE_OF_EACH["olmoe"], head_dim=8), None),
        (replace(LLAMA, d_model=18), "mistral"),
        (replace(LLAMA, window=5), "mistral"),
        (replace(ONE_OF_EACH["qwen2_moe"], attention_bias=False), "qwen2_moe"),
        (replace(ONE_OF_EACH["qwen2_moe"], shared_gate=False), None),
        (replace(ONE_OF_EACH["qwen3"], d_model=18), "qwen3"),
    ],
)
def test_a_family_is_written_only_where_it_computes_the_shape(shape, family):
    assert fitting_family(shape) == family
    if family:
        assert read_config(write_config(shape)) == shape
    else:
        with pytest.raises(UserError, match="no published family"):
            write_config(shape)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rope_parameters": {"full_attention": YARN}}, r"rope_parameters by layer type \(full_attention\)"),
        ({"rope_parameters": YARN | {"beta_fast": -1.0}}, "beta_fast=-1"),
        ({"rope_parameters": YARN | {"beta_fast": True}}, "beta_fast=True"),
        ({"rope_parameters": YARN | {"factor": float("nan")}}, "factor=nan"),
        ({"rope_parameters": YARN | {"factor": "4"}}, "factor='4'"),
        ({"rope_parameters": YARN | {"factor": None}}, "factor=None"),
        ({"rope_parameters": YARN | {"attention_factor": float("inf")}}, "attention_factor=inf"),
        ({"rope_parameters": YARN | {"rope_theta": 1.0}}, "rope_theta=1"),
        ({"rms_norm_eps": None}, "rms_norm_eps"),
        ({"num_hidden_layers": None}, "'num_hidden_layers' is missing"),
    ],
)
def test_a_field_that_says_nothing_usable_is_named(changes, says):
    with pytest.raises(UserError, match=says):
        read_config({**write_config(LLAMA), **changes})


@pytest.mark.parametrize("field", ["n_group", "topk_group", "num_experts_per_tok"])
def test_no_groups_of_experts_are_refused_in_one_line(field):
    with pytest.raises(UserError, match="=0"):
        read_config({**write_config(ONE_OF_EACH["deepseek_v3"]), field: 0})
