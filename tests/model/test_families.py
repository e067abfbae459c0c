"""Every family there and back: `transformers` and we compute the same logits from each other's folders."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sparsedial.errors import UserError
from sparsedial.model.cache import Cache
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.model.transformer import Transformer
from sparsedial.shape.config import read_config, write_config
from sparsedial.shape.shape import Shape
from tests.model.shapes import FAMILIES, shaken

IDS = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))
PADDED = torch.tensor([[False] * 5 + [True] * 12, [True] * 17])  # one sequence is padded on its left
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def close(shape: Shape) -> dict[str, float]:
    """How near logits are; gates that are times 16 make rounding larger."""
    return CLOSE | {"atol": 2e-5} if shape.routed_scaling == 16 else CLOSE


def theirs_from(folder: Path) -> Any:
    """The model that `transformers` loads."""
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def theirs_made(shape: Shape, folder: Path) -> Any:
    """A random model that `transformers` makes from our configuration, saved in `folder`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(write_config(shape)))
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).float().eval()
        for parameter in theirs.parameters():
            if parameter.dim() < 2:
                torch.nn.init.normal_(parameter, 1.0, 0.2)
        for name, buffer in theirs.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.normal_(0, 0.1)
        theirs.save_pretrained(folder)
    return theirs


def assert_same(ours: Transformer, theirs: Any) -> None:
    """Equal logits at several lengths, behind padding, and with a cache."""
    for length in (1, 7, 17):
        torch.testing.assert_close(ours(IDS[:, :length]), theirs(IDS[:, :length]).logits, **close(ours.shape))
    padded = theirs(IDS, attention_mask=PADDED.long()).logits
    cache, skipped = Cache(ours.shape, 2, 32, torch.device("cpu"), torch.float32), int((~PADDED[0]).sum())
    moved = torch.stack([IDS[0, :9].roll(-skipped), IDS[1, :9]])  # our padding is on the right
    first = ours(moved, cache=cache, lengths=[9 - skipped, 9])
    first = torch.stack([first[0].roll(skipped, 0), first[1]])
    rest = [ours(part, cache=cache) for part in IDS[:, 9:].split([5, 1, 1, 1], 1)]
    torch.testing.assert_close(torch.cat([first, *rest], 1)[PADDED], padded[PADDED], **CLOSE)
    past, parts = None, []
    for part in IDS.split([9, 5, 1, 1, 1], 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = theirs(part, past_key_values=past, use_cache=True)
        past = out.past_key_values
        parts.append(out.logits)
    torch.testing.assert_close(ours(IDS), torch.cat(parts, 1), **close(ours.shape))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_transformers_computes_the_same_logits_from_our_checkpoint(tmp_path: Path, family):
    model = shaken(FAMILIES[family])
    save_checkpoint(model, tmp_path / "checkpoint")
    assert_same(model, theirs_from(tmp_path / "checkpoint"))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_we_compute_the_same_logits_from_their_checkpoint(tmp_path: Path, family):
    theirs = theirs_made(FAMILIES[family], tmp_path / "theirs")
    assert_same(load(tmp_path / "theirs"), theirs)


def theirs_fused(shape: Shape, folder: Path) -> Any:
    """The same, its tensors in the folder as the model of `transformers` 5 holds them."""
    theirs = theirs_made(shape, folder)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    state = {name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}
    if shape.tied_embeddings:
        del state["lm_head.weight"]
    assert any(name.endswith("experts.gate_up_proj") for name in state)
    save_file(state, folder / "model.safetensors")
    return theirs


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "deepseek_v3"])
@torch.no_grad()
def test_experts_fused_in_one_tensor_are_read_too(tmp_path: Path, family):
    theirs = theirs_fused(FAMILIES[family], tmp_path / "theirs")
    torch.testing.assert_close(load(tmp_path / "theirs")(IDS), theirs(IDS).logits, **CLOSE)


@pytest.mark.parametrize(("family", "listens"), [("deepseek_v3", True), ("deepseek_v2, groups and scaling", False)])
@torch.no_grad()
def test_channels_in_halves_are_read_as_their_configuration_says(tmp_path: Path, family, listens):
    """DeepSeek-V2's class has no such field: its channels lie in pairs."""
    model = shaken(FAMILIES[family])
    save_checkpoint(model, tmp_path / "c")
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    (tmp_path / "c" / "sparsedial.json").unlink()
    (tmp_path / "c" / "config.json").write_text(json.dumps({**config, "rope_interleave": False}))
    theirs = theirs_from(tmp_path / "c")
    torch.testing.assert_close(load(tmp_path / "c")(IDS), theirs(IDS).logits, **close(model.shape))
    other = (theirs(IDS).logits - model(IDS)).abs().max() > 1e-3  # the same numbers, read otherwise
    assert bool(other) == listens


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_multi_token_prediction_travels_and_others_pass_it_over(tmp_path: Path, family):
    shape = replace(FAMILIES[family], mtp_layers=1)
    model = shaken(shape)
    save_checkpoint(model, tmp_path / "c")
    again = load(tmp_path / "c")
    assert again.shape == shape
    for (name, mine), other in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other), name
    torch.testing.assert_close(theirs_from(tmp_path / "c")(IDS).logits, model(IDS), **close(model.shape))


@pytest.mark.parametrize("family", ["qwen3", "mixtral", "olmoe", "qwen3_moe"])
@torch.no_grad()
def test_biases_that_no_family_has_are_read_here_alone(tmp_path: Path, family):
    model = shaken(replace(FAMILIES[family], attention_bias=True))
    save_checkpoint(model, tmp_path / "c")
    assert json.loads((tmp_path / "c" / "config.json").read_text())["model_type"] == "sparsedial"
    assert torch.equal(load(tmp_path / "c")(IDS), model(IDS))


@torch.no_grad()
def test_the_routing_bias_keeps_its_precision_as_in_transformers(tmp_path: Path):
    from transformers import AutoModelForCausalLM

    model = shaken(FAMILIES["deepseek_v3"])
    for layer in model.sparse_feed_forwards:
        assert layer.bias_E is not None
        layer.bias_E.add_(8.0)  # as large as in released models
    save_checkpoint(model, tmp_path / "c")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "c", dtype=torch.bfloat16)
    biases = [buffer for name, buffer in theirs.named_buffers() if name.endswith("correction_bias")]
    ours = load(tmp_path / "c", torch.bfloat16)
    for layer, read, bias in zip(model.sparse_feed_forwards, ours.sparse_feed_forwards, biases, strict=True):
        assert read.bias_E is not None
        assert torch.equal(read.bias_E, bias)
        assert torch.equal(read.bias_E, layer.bias_E)  # type: ignore[arg-type]
    assert ours.cosine_SC.dtype == torch.float32
    assert ours(IDS).isfinite().all()


@torch.no_grad()
def test_prediction_modules_that_the_files_lack_are_left_out(tmp_path: Path):
    """`transformers` keeps none and still says in its configuration that there is one."""
    theirs = theirs_made(replace(FAMILIES["deepseek_v3"], mtp_layers=1), tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    assert ours.shape.mtp_layers == 0
    torch.testing.assert_close(ours(IDS), theirs(IDS).logits, **CLOSE)


@pytest.mark.parametrize(
    ("family", "changes", "says"),
    [
        ("llama", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "longrope"),
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("olmoe", {"clip_qkv": 8.0}, "clip_qkv"),
        ("deepseek_v3", {"moe_layer_freq": 2}, "moe_layer_freq"),
        ("deepseek_v3", {"topk_method": "greedy"}, "topk_method"),
        ("deepseek_v2, groups and scaling", {"norm_topk_prob": True}, "norm_topk_prob"),
        ("glm4_moe", {"partial_rotary_factor": 0.4}, "partial_rotary_factor=0.4 of head_dim=8 is no even number"),
        ("glm4_moe", {"rope_parameters": {"partial_rotary_factor": 2.0, "rope_theta": 1e4}}, "partial_rotary_factor=2"),
        ("qwen3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("qwen3_moe", {"decoder_sparse_step": 0}, "decoder_sparse_step"),
        ("qwen3_moe", {"mlp_only_layers": 1}, "mlp_only_layers"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("mistral", {"attention_bias": True}, "attention_bias"),
        ("qwen2", {"hidden_act": "gelu"}, "hidden_act"),
        ("qwen2_moe", {"shared_expert_intermediate_size": 12}, "shared_expert_intermediate_size=12 is no multiple"),
        ("qwen2_moe", {"shared_expert_intermediate_size": 0}, "shared_expert_intermediate_size=0"),
        ("qwen2_moe", {"use_sliding_window": True, "num_hidden_layers": 3}, "layer_types"),
        ("qwen2_moe", {"qkv_bias": "yes"}, "qkv_bias"),
        ("llama", {"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ("llama", {"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ("llama", {"rms_norm_eps": "x"}, "rms_norm_eps"),
        ("llama", {"rope_parameters": {"rope_theta": 0}}, "rope_theta"),
        ("llama", {"rope_scaling": "yarn"}, "rope_scaling"),
        ("llama", {"rope_parameters": [1]}, "rope_parameters"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "beta_fast": "x"}}, "beta_fast"),
        ("llama", {"layer_types": ["linear_attention"]}, "layer_types"),
        ("llama", {"layer_types": 3}, "layer_types"),
        ("llama", {"model_type": 5}, "model_type"),
        ("llama", {"model_type": "sparsedial", "shape": [1]}, "shape"),
        ("deepseek_v3", {"routed_scaling_factor": "x"}, "routed_scaling_factor"),
        ("deepseek_v3", {"norm_topk_prob": 1}, "norm_topk_prob"),
        ("mixtral", {"num_local_experts": 0}, "num_local_experts=0, but layers from 0 on are sparse"),
        ("deepseek_v3", {"n_routed_experts": 0}, "n_routed_experts=0, but layers from 1 on are sparse"),
        ("qwen3, windows from the second layer on", {
            "layer_types": ["sliding_attention", "full_attention", "full_attention"]
        }, "layer_types"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_its_field(family, changes, says):
    with pytest.raises(UserError, match=says):
        read_config({**write_config(FAMILIES[family]), **changes})
