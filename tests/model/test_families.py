"""Every family there and back: `transformers` and we compute the same logits from each other's folders."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsedial.errors import UserError
from sparsedial.model.attention import Cache
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.model.transformer import Transformer
from sparsedial.shape.config import read_config, write_config
from sparsedial.shape.shape import Shape
from tests.model.shapes import FAMILIES, LATENT, V3, shaken

IDS = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))
PADDED = torch.tensor([[False] * 5 + [True] * 12, [True] * 17])  # one sequence is padded on its left
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


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
        torch.testing.assert_close(ours(IDS[:, :length]), theirs(IDS[:, :length]).logits, **CLOSE)
    padded = theirs(IDS, attention_mask=PADDED.long()).logits
    torch.testing.assert_close(ours(IDS, real_BS=PADDED)[PADDED], padded[PADDED], **CLOSE)
    cache = Cache(ours.shape, 2, 32, torch.device("cpu"), torch.float32)
    first = ours(IDS[:, :9], cache=cache, real_BS=PADDED[:, :9])
    rest = [ours(part, cache=cache) for part in IDS[:, 9:].split([5, 1, 1, 1], 1)]
    torch.testing.assert_close(torch.cat([first, *rest], 1)[PADDED], padded[PADDED], **CLOSE)
    past, parts = None, []
    for part in IDS.split([9, 5, 1, 1, 1], 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = theirs(part, past_key_values=past, use_cache=True)
        past = out.past_key_values
        parts.append(out.logits)
    torch.testing.assert_close(ours(IDS), torch.cat(parts, 1), **CLOSE)


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


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "deepseek_v3"])
@torch.no_grad()
def test_experts_fused_in_one_tensor_are_read_too(tmp_path: Path, family):
    theirs = theirs_made(FAMILIES[family], tmp_path / "theirs")
    for file in (tmp_path / "theirs").glob("*.safetensors"):
        file.unlink()
    state = {name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}
    assert any(name.endswith("experts.gate_up_proj") for name in state)
    save_file(state, tmp_path / "theirs" / "model.safetensors")
    torch.testing.assert_close(load(tmp_path / "theirs")(IDS), theirs(IDS).logits, **CLOSE)


@torch.no_grad()
def test_weights_in_blocks_of_eight_bits_are_brought_back(tmp_path: Path):
    """As DeepSeek-V3 was released: float8 with a factor for every block of 128 by 128, here of 16 by 16."""
    model = shaken(FAMILIES["deepseek_v3"])
    folder = tmp_path / "c"
    save_checkpoint(model, folder)
    (folder / "sparsedial.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    (folder / "config.json").write_text(json.dumps(config))
    tensors, rounded = load_file(folder / "model.safetensors"), {}
    for name in [name for name in tensors if "_proj" in name or ".gate_proj" in name]:
        low, scale = quantised(tensors[name], 16)
        rounded[name] = (low.float() * spread(scale, low.shape, 16)).clone()
        tensors[name], tensors[f"{name}_scale_inv"] = low, scale
    save_file(tensors, folder / "model.safetensors")
    expected = load(folder)
    for name, part in rounded.items():
        assert part.isfinite().all(), name
    plain = {**{name: t for name, t in tensors.items() if not name.endswith("_scale_inv")}, **rounded}
    save_file(plain, folder / "model.safetensors")
    torch.testing.assert_close(expected(IDS), load(folder)(IDS))
    assert (expected(IDS) - model(IDS)).abs().median() < 0.15  # three bits of mantissa; some tokens change experts


def quantised(weight: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = (-(-size // block) for size in weight.shape)
    scale = torch.empty(rows, columns)
    low = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
    for i in range(rows):
        for j in range(columns):
            place = slice(i * block, (i + 1) * block), slice(j * block, (j + 1) * block)
            scale[i, j] = weight[place].abs().max() / 448
            low[place] = (weight[place] / scale[i, j]).to(torch.float8_e4m3fn)
    return low, scale


def spread(scale: torch.Tensor, size: torch.Size, block: int) -> torch.Tensor:
    return scale.repeat_interleave(block, 0).repeat_interleave(block, 1)[: size[0], : size[1]]


@torch.no_grad()
def test_eight_bits_without_their_factors_are_refused(tmp_path: Path):
    save_checkpoint(shaken(FAMILIES["llama"]), tmp_path / "c")
    (tmp_path / "c" / "sparsedial.json").unlink()
    tensors = load_file(tmp_path / "c" / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"].to(torch.float8_e4m3fn)
    save_file(tensors, tmp_path / "c" / "model.safetensors")
    with pytest.raises(UserError, match="without its scales"):
        load(tmp_path / "c")


@torch.no_grad()
def test_channels_in_halves_are_read_as_their_configuration_says(tmp_path: Path):
    model = shaken(FAMILIES["deepseek_v3"])
    save_checkpoint(model, tmp_path / "c")
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    (tmp_path / "c" / "sparsedial.json").unlink()
    (tmp_path / "c" / "config.json").write_text(json.dumps({**config, "rope_interleave": False}))
    theirs = theirs_from(tmp_path / "c")
    torch.testing.assert_close(load(tmp_path / "c")(IDS), theirs(IDS).logits, **CLOSE)
    assert (theirs(IDS).logits - model(IDS)).abs().max() > 1e-3  # the same numbers, read otherwise


@torch.no_grad()
def test_multi_token_prediction_travels_and_others_pass_it_over(tmp_path: Path):
    shape = Shape(**LATENT, **V3, q_lora_rank=9, mtp_layers=1)
    model = shaken(shape)
    save_checkpoint(model, tmp_path / "c")
    again = load(tmp_path / "c")
    assert again.shape == shape
    for (name, mine), other in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other), name
    torch.testing.assert_close(theirs_from(tmp_path / "c")(IDS).logits, model(IDS), **CLOSE)


@torch.no_grad()
def test_prediction_modules_that_the_files_lack_are_left_out(tmp_path: Path):
    """`transformers` keeps none and still says in its configuration that there is one."""
    theirs = theirs_made(replace(FAMILIES["deepseek_v3"], mtp_layers=1), tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    assert ours.shape.mtp_layers == 0
    torch.testing.assert_close(ours(IDS), theirs(IDS).logits, **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_written_config_reads_back_as_the_same_shape(family):
    assert read_config(write_config(FAMILIES[family])) == FAMILIES[family]


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
        ("glm4_moe", {"rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 1e4}}, "partial_rotary_factor"),
        ("qwen3_moe", {"decoder_sparse_step": 0}, "decoder_sparse_step"),
        ("qwen3_moe", {"mlp_only_layers": 1}, "mlp_only_layers"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
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
        ("qwen3_moe", {"mlp_only_layers": [0, 1]}, "no layer of it is sparse"),
        ("qwen3, windows from the second layer on", {
            "layer_types": ["sliding_attention", "full_attention", "full_attention"]
        }, "layer_types"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_its_field(family, changes, says):
    with pytest.raises(UserError, match=says):
        read_config({**write_config(FAMILIES[family]), **changes})
