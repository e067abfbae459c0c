"""Folders as others leave them: names with prefixes, tensors twice, heads, modules and counts that contradict."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsedial.errors import UserError
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.shape.config import write_config
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.published import find_shape
from sparsedial.shape.shape import Shape
from tests.model.shapes import DENSE, FAMILIES, shaken
from tests.model.test_families import CLOSE, theirs_from

IDS = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))
LLAMA = FAMILIES["llama"]
TIED = replace(LLAMA, tied_embeddings=True)
Tensors = dict[str, torch.Tensor]


def folder_of(shape: Shape, folder: Path, **config: Any) -> Tensors:
    """A folder of a model without digests, its configuration changed; gives its tensors."""
    save_checkpoint(shaken(shape), folder)
    (folder / "sparsedial.json").unlink()
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, **config}))
    return load_file(folder / "model.safetensors")


def written_as(tensors: Tensors, folder: Path) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def in_two(folder: Path, first: Tensors, second: Tensors, index: dict[str, int] | None) -> list[str]:
    """The folder's weights in two files, with an index that names the file of each tensor or without one."""
    (folder / "model.safetensors").unlink()
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for file, tensors in zip(files, (first, second), strict=True):
        save_file(tensors, folder / file, metadata={"format": "pt"})
    if index is not None:
        named = {name: files[number] for name, number in index.items()}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": named}))
    return files


NORM = "model.norm.weight"


@pytest.mark.parametrize("number", [0, 1])
def test_the_index_decides_which_file_holds_a_tensor(tmp_path: Path, number):
    tensors = folder_of(LLAMA, tmp_path / "c")
    values = [torch.full((16,), 2.0), torch.full((16,), 3.0)]
    first, second = {**tensors, NORM: values[0]}, {NORM: values[1]}
    in_two(tmp_path / "c", first, second, {**dict.fromkeys(tensors, 0), NORM: number, "other": 1})
    assert torch.equal(load(tmp_path / "c").norm_D, values[number])


@pytest.mark.parametrize("index", [None, {"model.embed_tokens.weight": 0, "lm_head.weight": 1}])
def test_a_tensor_in_two_files_is_refused_with_both(tmp_path: Path, index):
    tensors = folder_of(LLAMA, tmp_path / "c")
    files = in_two(tmp_path / "c", tensors, {NORM: tensors[NORM]}, index)
    with pytest.raises(UserError) as error:
        load(tmp_path / "c")
    for part in (NORM, *files):
        assert part in error.value.problem


@torch.no_grad()
def test_a_tied_model_with_another_head_uses_it_and_is_untied(tmp_path: Path):
    tensors = folder_of(TIED, tmp_path / "c")
    head = tensors["model.embed_tokens.weight"].flip(0).contiguous()
    written_as({**tensors, "lm_head.weight": head}, tmp_path / "c")
    ours = load(tmp_path / "c")
    assert ours.shape == LLAMA
    torch.testing.assert_close(ours(IDS), theirs_from(tmp_path / "c")(IDS).logits, **CLOSE)
    assert total_parameters(find_shape(str(tmp_path / "c"))[1]) == total_parameters(LLAMA)


@torch.no_grad()
def test_a_tied_model_with_the_same_head_stays_tied(tmp_path: Path):
    tensors = folder_of(TIED, tmp_path / "c")
    written_as({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, tmp_path / "c")
    ours = load(tmp_path / "c")
    assert ours.shape == find_shape(str(tmp_path / "c"))[1] == TIED
    assert torch.equal(ours(IDS), shaken(TIED)(IDS))


@torch.no_grad()
def test_a_head_alone_serves_a_tied_model_as_both(tmp_path: Path):
    tensors = folder_of(TIED, tmp_path / "c")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    written_as(tensors, tmp_path / "c")
    ours = load(tmp_path / "c")
    assert ours.shape == TIED
    assert torch.equal(ours(IDS), shaken(TIED)(IDS))
    torch.testing.assert_close(ours(IDS), theirs_from(tmp_path / "c")(IDS).logits, **CLOSE)


def test_counting_needs_no_weights_beside_a_tied_configuration(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(write_config(TIED)))
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    assert find_shape(str(tmp_path))[1] == TIED


@pytest.mark.parametrize("asked", [0, None, "nothing", 1])
@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "deepseek_v3"])
@torch.no_grad()
def test_modules_of_multi_token_prediction_are_read_only_where_they_are_asked_for(tmp_path: Path, family, asked):
    shape = replace(FAMILIES[family], mtp_layers=1)
    folder_of(shape, tmp_path / "c", num_nextn_predict_layers=asked)
    if asked == "nothing":
        config = json.loads((tmp_path / "c" / "config.json").read_text())
        del config["num_nextn_predict_layers"]
        (tmp_path / "c" / "config.json").write_text(json.dumps(config))
    wanted = asked == 1 or (asked == "nothing" and family == "deepseek_v3")  # whose class takes one for granted
    ours = load(tmp_path / "c")
    assert ours.shape == replace(shape, mtp_layers=int(wanted))
    assert torch.equal(ours(IDS), shaken(shape)(IDS))


def test_layers_beyond_the_configurations_are_not_taken_for_modules(tmp_path: Path):
    folder_of(replace(LLAMA, layers=3), tmp_path / "c", num_hidden_layers=2)
    with pytest.raises(UserError, match=r"unexpected model\.layers\.2\."):
        load(tmp_path / "c")


RENAMED = {
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "torch.compile layer by layer": lambda name: name.replace("layers.0.", "layers.0._orig_mod."),
    "DDP": lambda name: f"module.{name}",
    "DDP around torch.compile": lambda name: f"module._orig_mod.{name}",
    "FSDP": lambda name: f"_fsdp_wrapped_module.{name}",
    "the decoder of a larger model": lambda name: f"language_model.{name}",
    "the same in newer files": lambda name: name.replace("model.", "model.language_model.", 1),
    "a base model": lambda name: name.removeprefix("model."),
}


@pytest.mark.parametrize("how", RENAMED)
@pytest.mark.parametrize("shape", [TIED, replace(FAMILIES["deepseek_v3"], mtp_layers=1), FAMILIES["qwen3_moe"]])
def test_prefixes_that_say_nothing_change_nothing(tmp_path: Path, how, shape):
    tensors = folder_of(shape, tmp_path / "c")
    written_as({RENAMED[how](name): tensor for name, tensor in tensors.items()}, tmp_path / "c")
    for mine, other in zip(load(tmp_path / "c").parameters(), shaken(shape).parameters(), strict=True):
        assert torch.equal(mine, other)


def test_two_names_of_one_tensor_are_refused_with_both(tmp_path: Path):
    tensors = folder_of(LLAMA, tmp_path / "c")
    written_as({**tensors, f"module.{NORM}": tensors[NORM].clone()}, tmp_path / "c")
    with pytest.raises(UserError, match=f"module.{NORM} and {NORM}|{NORM} and module.{NORM}"):
        load(tmp_path / "c")


def test_other_prefixes_are_shown_beside_what_is_missing(tmp_path: Path):
    tensors = folder_of(LLAMA, tmp_path / "c")
    written_as({f"teacher.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "c")
    with pytest.raises(UserError, match=r"missing model\..*unexpected teacher\.model\."):
        load(tmp_path / "c")


MOE, V3 = FAMILIES["qwen3_moe"], FAMILIES["deepseek_v3"]
TRUNCATED = {
    "fewer layers than the first dense ones": (V3, {"num_hidden_layers": 1, "first_k_dense_replace": 3}),
    "the same of DeepSeek-V2": (
        FAMILIES["deepseek_v2, queries as they are"],
        {"num_hidden_layers": 1, "first_k_dense_replace": 3},
    ),
    "every layer dense by a list": (MOE, {"mlp_only_layers": [0, 1]}),
    "every layer dense by steps": (MOE, {"decoder_sparse_step": 3}),
    "no experts": (MOE, {"num_experts": 0}),
    "no experts, and gated shared ones": (FAMILIES["qwen2_moe"], {"num_experts": 0}),
}


@pytest.mark.parametrize("how", TRUNCATED)
@torch.no_grad()
def test_truncated_models_count_and_load(tmp_path: Path, how):
    from transformers import AutoConfig, AutoModelForCausalLM

    shape, changes = TRUNCATED[how]
    config = {**write_config(shape), "intermediate_size": 24, "num_nextn_predict_layers": 0, **changes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    theirs = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path)).float().eval()
    theirs.save_pretrained(tmp_path)
    counted = find_shape(str(tmp_path))[1]
    assert counted.sparse_layers == 0
    assert total_parameters(counted) == sum(parameter.numel() for parameter in theirs.parameters())
    torch.testing.assert_close(load(tmp_path)(IDS), theirs(IDS).logits, **CLOSE)


QUANTISED = {
    "AWQ": ({"quant_method": "awq", "bits": 4}, ("qweight", "qzeros", "scales"), r"awq \(4 bits\)"),
    "GPTQ": ({"quant_method": "gptq", "bits": 3}, ("qweight", "qzeros", "scales", "g_idx"), r"gptq \(3 bits\)"),
    "GPTQ that says nothing": (None, ("qweight", "qzeros", "scales", "g_idx"), "gptq"),
    "bitsandbytes": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False},
        ("weight", "weight.absmax", "weight.quant_map", "weight.quant_state.bitsandbytes__nf4"),
        r"bitsandbytes \(4 bits\)",
    ),
    "bitsandbytes of old": ({"load_in_8bit": True}, ("weight", "SCB"), r"bitsandbytes \(8 bits\)"),
    "compressed-tensors": (
        {"quant_method": "compressed-tensors", "config_groups": {}},
        ("weight_packed", "weight_scale", "weight_shape"),
        "compressed-tensors",
    ),
}


@pytest.mark.parametrize("how", QUANTISED)
def test_a_quantised_folder_is_named_as_such(tmp_path: Path, how):
    config, endings, says = QUANTISED[how]
    tensors = folder_of(DENSE, tmp_path / "c", **({"quantization_config": config} if config else {}))
    packed = torch.zeros(16, 2, dtype=torch.int32)
    for name in [name for name in tensors if "_proj" in name]:
        del tensors[name]
        tensors |= {f"{name.removesuffix('weight')}{ending}": packed.clone() for ending in endings}
    written_as(tensors, tmp_path / "c")
    with pytest.raises(UserError, match=f"quantised by {says}, which is not read"):
        load(tmp_path / "c")


def test_plain_weights_that_are_said_to_be_quantised_are_refused(tmp_path: Path):
    folder_of(DENSE, tmp_path / "c", quantization_config={"quant_method": "awq", "bits": 4})
    with pytest.raises(UserError, match=r"quantised by awq \(4 bits\), which is not read") as refused:
        load(tmp_path / "c")
    assert "take quantization_config out of config.json" in (refused.value.hint or "")
