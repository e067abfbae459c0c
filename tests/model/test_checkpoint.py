"""Checkpoint folders: whole or not there, verified, streamed, refused with a list."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sparsedial.errors import UserError
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.shape.config import read_config
from sparsedial.store import write_json
from tests.model.shapes import DENSE, FAMILIES, SPARSE, UNEQUAL, shaken

IDS = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path):
    model = shaken(SPARSE)
    save_checkpoint(model, tmp_path / "c")
    again = load(tmp_path / "c")
    assert again.shape == SPARSE
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize(
    ("family", "copied"),
    [("glm4_moe", True), ("olmoe", True), ("deepseek_v2, queries as they are", True), ("qwen3_moe", False)],
)
def test_a_tied_table_is_copied_for_programs_that_would_miss_its_copy(tmp_path: Path, family, copied):
    """vLLM leaves the head of some families unset where the files have none."""
    model = shaken(replace(FAMILIES[family], tied_embeddings=True))
    save_checkpoint(model, tmp_path / "c", shard_bytes=20_000)
    tensors = {name: row for file in (tmp_path / "c").glob("*.safetensors") for name, row in load_file(file).items()}
    assert ("lm_head.weight" in tensors) == copied
    if copied:
        assert torch.equal(tensors["lm_head.weight"], tensors["model.embed_tokens.weight"])
        assert len(list((tmp_path / "c").glob("*.safetensors"))) > 1
    assert read_config(tmp_path / "c") == model.shape
    assert load(tmp_path / "c").shape == model.shape


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, file):
    save_checkpoint(shaken(DENSE), tmp_path / "c")
    path = tmp_path / "c" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=file):
        load(tmp_path / "c")


def test_missing_unexpected_and_wrongly_shaped_tensors_are_listed(tmp_path: Path):
    from safetensors.torch import save_file

    save_checkpoint(shaken(DENSE), tmp_path / "c")
    (tmp_path / "c" / "sparsedial.json").unlink()
    tensors = load_file(tmp_path / "c" / "model.safetensors")
    tensors["model.extra"] = torch.zeros(1)
    tensors["model.norm.weight"] = torch.zeros(3)
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "c" / "model.safetensors")
    with pytest.raises(UserError) as error:
        load(tmp_path / "c")
    for part in ("missing model.layers.0.mlp.up_proj.weight", "unexpected model.extra", "model.norm.weight is [3]"):
        assert part in error.value.problem


def test_weights_are_never_read_from_pickles(tmp_path: Path):
    save_checkpoint(shaken(DENSE), tmp_path / "c")
    (tmp_path / "c" / "model.safetensors").rename(tmp_path / "c" / "pytorch_model.bin")
    (tmp_path / "c" / "sparsedial.json").unlink()
    with pytest.raises(UserError, match="no safetensors file"):
        load(tmp_path / "c")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path: Path, value):
    from safetensors.torch import save_file

    save_checkpoint(shaken(DENSE), tmp_path / "c")
    (tmp_path / "c" / "sparsedial.json").unlink()
    tensors = load_file(tmp_path / "c" / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 2] = value
    save_file(tensors, tmp_path / "c" / "model.safetensors")
    with pytest.raises(UserError, match=r"layers.1.mlp.up_proj.weight holds values that are not finite"):
        load(tmp_path / "c")


@pytest.mark.parametrize(("value", "dtype"), [(1e6, torch.float16), (-7e4, torch.float16), (3.4e38, torch.bfloat16)])
def test_a_type_too_narrow_for_a_weight_is_refused_by_name(tmp_path: Path, value, dtype):
    model = shaken(DENSE)
    with torch.no_grad():
        model.norm_D[0] = value
    save_checkpoint(model, tmp_path / "c")
    with pytest.raises(UserError, match=f"model.norm.weight holds values that are not finite in {dtype}"):
        load(tmp_path / "c", dtype)
    assert torch.equal(load(tmp_path / "c").norm_D, model.norm_D)


@pytest.mark.parametrize(("dtype", "named"), [(torch.int32, "I32"), (torch.complex64, "C64"), (torch.bool, "BOOL")])
def test_weights_of_no_floating_point_type_are_refused_by_name(tmp_path: Path, dtype, named):
    from safetensors.torch import save_file

    save_checkpoint(shaken(DENSE), tmp_path / "c")
    (tmp_path / "c" / "sparsedial.json").unlink()
    tensors = load_file(tmp_path / "c" / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(dtype)
    save_file(tensors, tmp_path / "c" / "model.safetensors")
    with pytest.raises(UserError, match=f"model.norm.weight is {named}"):
        load(tmp_path / "c")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.json", "{", "not readable as JSON"),
        ("config.json", "[1]", "not a configuration"),
        ("config.json", {"vocab_size": 10**15}, "describes"),
        ("config.json", {"num_hidden_layers": 9_999}, "describes"),
        ("config.json", {"quantization_config": [1]}, "quantization_config"),
        ("model.safetensors", "", "not readable as safetensors"),
    ],
)
def test_files_of_other_content_are_said(tmp_path: Path, file, content, says):
    """A model far larger than its files is refused before its memory is asked for."""
    save_checkpoint(shaken(DENSE), tmp_path / "c")
    (tmp_path / "c" / "sparsedial.json").unlink()
    path = tmp_path / "c" / file
    path.write_text(content if isinstance(content, str) else json.dumps({**json.loads(path.read_text()), **content}))
    with pytest.raises(UserError, match=says):
        load(tmp_path / "c")


def test_more_modules_of_multi_token_prediction_than_the_files_hold_are_said(tmp_path: Path):
    save_checkpoint(shaken(replace(DENSE, mtp_layers=1)), tmp_path / "c")
    (tmp_path / "c" / "sparsedial.json").unlink()
    path = tmp_path / "c" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_nextn_predict_layers": 300}))
    with pytest.raises(UserError, match="describes"):
        load(tmp_path / "c")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "not readable as an index"),
        ('{"weight_map": {"a": 5}}', "names 5, which is not there"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "not there"),
    ],
)
def test_an_index_of_other_content_is_said(tmp_path: Path, content, says):
    save_checkpoint(shaken(DENSE), tmp_path / "c", shard_bytes=5_000)
    (tmp_path / "c" / "sparsedial.json").unlink()
    (tmp_path / "c" / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match=says):
        load(tmp_path / "c")


@pytest.mark.parametrize("beside", ["adapter_model.safetensors", "model.safetensors.index.json"])
@torch.no_grad()
def test_the_file_of_the_usual_name_is_read_alone(tmp_path: Path, beside):
    """As `transformers` does."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    model = shaken(DENSE)
    save_checkpoint(model, tmp_path / "c")
    (tmp_path / "c" / "sparsedial.json").unlink()
    save_file({"x": torch.zeros(1)}, tmp_path / "c" / "adapter_model.safetensors")
    if beside.endswith(".json"):
        (tmp_path / "c" / beside).write_text('{"metadata": {}, "weight_map": {"x": "adapter_model.safetensors"}}')
    assert torch.equal(load(tmp_path / "c")(IDS), model(IDS))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "c", dtype=torch.float32).eval()
    torch.testing.assert_close(theirs(IDS).logits, model(IDS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "name", "passes"),
    [
        (replace(DENSE, tied_embeddings=True), "lm_head.weight", True),
        (replace(DENSE, tied_embeddings=True), "other.lm_head.weight", False),
        (DENSE, "model.layers.0.self_attn.rotary_emb.inv_freq", True),
        (DENSE, "model.layers.0.rotary_emb.inv_freq", False),
        (DENSE, "model.layers.0.embed_tokens.weight", False),
        (replace(DENSE, mtp_layers=1), f"model.layers.{DENSE.layers}.embed_tokens.weight", True),
        (replace(DENSE, mtp_layers=1), f"model.layers.{DENSE.layers}.shared_head.head.weight", True),
        (replace(DENSE, mtp_layers=1), f"model.layers.{DENSE.layers - 1}.shared_head.head.weight", False),
    ],
)
def test_only_what_holds_nothing_of_its_own_is_passed_over(tmp_path: Path, shape, name, passes):
    from safetensors.torch import save_file

    save_checkpoint(shaken(shape), tmp_path / "c")
    (tmp_path / "c" / "sparsedial.json").unlink()
    tensors = load_file(tmp_path / "c" / "model.safetensors")
    copy = tensors["model.embed_tokens.weight"].clone() if name == "lm_head.weight" else torch.zeros(1)
    save_file({**tensors, name: copy}, tmp_path / "c" / "model.safetensors")
    if passes:
        load(tmp_path / "c")
    else:
        with pytest.raises(UserError, match=f"unexpected {name}"):
            load(tmp_path / "c")


@pytest.mark.parametrize("record", [{"a": 1}, {"files_sha256": {"../../etc/passwd": "x"}}, {"files_sha256": [1]}])
def test_a_summary_without_digests_of_its_own_folder_is_refused(tmp_path: Path, record):
    save_checkpoint(shaken(DENSE), tmp_path / "c")
    write_json(tmp_path / "c" / "sparsedial.json", record)
    with pytest.raises(UserError, match="holds no digests"):
        load(tmp_path / "c")


@pytest.mark.parametrize("dtype", ["bfloat16", torch.int8, torch.float8_e4m3fn, None])
def test_a_type_that_weights_cannot_have_is_refused(tmp_path: Path, dtype):
    save_checkpoint(shaken(DENSE), tmp_path / "c")
    with pytest.raises(UserError, match="not a floating-point type"):
        load(tmp_path / "c", dtype)


@torch.no_grad()
def test_shards_and_their_index_make_one_model(tmp_path: Path):
    from transformers import AutoModelForCausalLM

    model = shaken(SPARSE)
    save_checkpoint(model, tmp_path / "c", shard_bytes=20_000)
    shards = sorted(path.name for path in (tmp_path / "c").glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert torch.equal(load(tmp_path / "c")(IDS), model(IDS))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "c", dtype=torch.float32).eval()
    torch.testing.assert_close(theirs(IDS).logits, model(IDS), atol=1e-5, rtol=1e-5)
    (tmp_path / "c" / shards[1]).unlink()
    with pytest.raises(UserError, match=shards[1]):
        load(tmp_path / "c")


def test_an_index_names_files_of_its_own_folder_alone(tmp_path: Path):
    save_checkpoint(shaken(DENSE), tmp_path / "c", shard_bytes=5_000)
    (tmp_path / "c" / "sparsedial.json").unlink()
    index = tmp_path / "c" / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = dict.fromkeys(content["weight_map"], "../c/model-00001-of-00002.safetensors")
    index.write_text(json.dumps(content))
    with pytest.raises(UserError, match="not there"):
        load(tmp_path / "c")


@pytest.mark.parametrize("shape", [replace(SPARSE, logit_cap=20.0, top_p=0.7), UNEQUAL])
@torch.no_grad()
def test_a_shape_of_no_family_is_read_here_and_refused_elsewhere(tmp_path: Path, shape):
    from transformers import AutoConfig

    model = shaken(shape)
    save_checkpoint(model, tmp_path / "c")
    assert read_config(tmp_path / "c") == shape
    assert torch.equal(load(tmp_path / "c")(IDS), model(IDS))
    with pytest.raises(ValueError, match="sparsedial"):
        AutoConfig.from_pretrained(tmp_path / "c")
