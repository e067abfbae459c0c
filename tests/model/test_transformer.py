"""The model: causal, cached as uncached, equal to what `transformers` computes from the same weights."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.model.attention import Cache
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.model.transformer import initialise
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape

SPARSE = Ladder(vocab_size=64, context=32).shape(16, 8)
DENSE = Ladder(vocab_size=64, context=32).shape(16, 0)
GROUPED = replace(DENSE, heads=4, kv_heads=2, head_dim=4)
SMALL = {"layers": 2, "d_model": 16, "heads": 4, "kv_heads": 2, "head_dim": 4, "vocab_size": 64, "context": 32}
EXPERTS = {"d_ff": 0, "experts": 8, "top_k": 2, "d_expert": 8}
FAMILIES = {
    "llama": Shape(**SMALL, d_ff=40),
    "qwen3": Shape(**SMALL, d_ff=40, qk_norm="head", tied_embeddings=True),
    "mixtral": Shape(**SMALL, **EXPERTS),
    "olmoe": Shape(**SMALL, **EXPERTS, qk_norm="full", normalize_gates=False),
    "qwen3_moe": Shape(**SMALL, **EXPERTS, qk_norm="head"),
    "glm4_moe": SPARSE,
    "glm4_moe, first layer dense": replace(SPARSE, dense_layers=1, d_ff=24, layers=3),
}
IDS = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))


def shaken(shape: Shape):
    """A model whose norms and biases are not at their start, so that leaving one out shows."""
    model = initialise(shape, 1)
    make = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=make))
        for layer in model.sparse_feed_forwards:
            if layer.bias_E is not None:
                layer.bias_E.copy_(0.1 * torch.randn(8, generator=make))
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_transformers_computes_the_same_logits_from_our_checkpoint(tmp_path: Path, family):
    from transformers import AutoModelForCausalLM

    model = shaken(FAMILIES[family])
    save_checkpoint(model, tmp_path / "checkpoint")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", dtype=torch.float32).eval()
        expected = theirs(IDS).logits
    torch.testing.assert_close(model(IDS), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_we_compute_the_same_logits_from_their_checkpoint(tmp_path: Path, family):
    from transformers import AutoConfig, AutoModelForCausalLM

    from sparsedial.shape.config import write_config

    (tmp_path / "config.json").write_text(json.dumps(write_config(FAMILIES[family])))
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path)).float().eval()
        theirs.save_pretrained(tmp_path / "theirs")
        expected = theirs(IDS).logits
    torch.testing.assert_close(load(tmp_path / "theirs")(IDS), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [SPARSE, DENSE, GROUPED])
@torch.no_grad()
def test_a_position_sees_nothing_after_it(shape):
    model = shaken(shape)
    changed = IDS.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 64
    torch.testing.assert_close(model(changed)[:, :9], model(IDS)[:, :9], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [SPARSE, DENSE, GROUPED])
@pytest.mark.parametrize("pieces", [[1] * 17, [5, 12], [16, 1]])
@torch.no_grad()
def test_logits_with_a_cache_equal_those_without(shape, pieces):
    model = shaken(shape)
    cache = Cache(shape, 2, 32, torch.device("cpu"), torch.float32)
    parts = [model(part, cache=cache) for part in IDS.split(pieces, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(IDS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (torch.full((1, 4), 64), "outside 0..63"),
        (torch.full((1, 4), -1), "outside 0..63"),
        (torch.zeros(1, 33, dtype=torch.long), "more than its context of 32"),
        (torch.zeros(1, 0, dtype=torch.long), "no token ids"),
        (torch.zeros(0, 4, dtype=torch.long), "no token ids"),
    ],
)
def test_bad_ids_are_refused_in_one_line(ids, says):
    with pytest.raises(UserError, match=says):
        initialise(DENSE, 0)(ids)


def test_the_same_seed_gives_the_same_weights():
    for (name, first), second in zip(
        initialise(SPARSE, 3).named_parameters(), initialise(SPARSE, 3).parameters(), strict=True
    ):
        assert torch.equal(first, second), name


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path):
    model = shaken(SPARSE)
    save_checkpoint(model, tmp_path / "c")
    again = load(tmp_path / "c")
    assert again.shape == SPARSE
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


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
    from safetensors.torch import load_file, save_file

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
