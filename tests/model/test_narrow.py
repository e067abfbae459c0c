"""Weights held in bfloat16: every path gives what the same weights give in float32, and only matrices are rounded."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparsedial.kernels import native
from sparsedial.model.checkpoint import load, load_as_stored, save_checkpoint
from sparsedial.model.decoder import Decoder, compiles
from sparsedial.model.narrow import narrow, weights_dtype
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import Routing, Transformer
from sparsedial.model.turned import at_setting
from sparsedial.model.weights import stream_of
from sparsedial.model.writing import write_checkpoint
from sparsedial.pruning.gates import measured_gates
from sparsedial.serving.generation import generate_together
from sparsedial.serving.sampling import Sampling
from sparsedial.serving.speculation import speculate
from sparsedial.shape.shape import Shape
from sparsedial.shape.turned import Turned
from sparsedial.text.tokenizer import Tokenizer
from tests.model.shapes import DENSE, FAMILIES, GROUPED, SPARSE, UNEQUAL, shaken
from tests.model.test_cache import play
from tests.model.test_decoder import NARROW, ONES, UNEQUAL_LATENT
from tests.model.test_gates import decoded_alike, random_windows

compiled = pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
EXACT = ("router", "shared_gate")  # parts that stay in float32, beside all vectors
WIDE = replace(
    GROUPED, d_model=72, heads=3, kv_heads=1, head_dim=24, d_ff=1100, dense_layers=1, experts=5, top_k=2,
    shared_experts=1, d_expert=84, vocab_size=61,
)  # fmt: skip
SHAPES = {
    "dense": DENSE,
    "grouped": GROUPED,
    "sparse": SPARSE,
    "unequal": UNEQUAL,
    "unequal latent": UNEQUAL_LATENT,
    "gates of ones": ONES,
    "capped": replace(DENSE, logit_cap=5.0),
    "untied": replace(DENSE, tied_embeddings=False),
    "all experts": replace(SPARSE, top_k=SPARSE.experts),
    **{
        name: FAMILIES[name]
        for name in (
            "olmoe",
            "glm4_moe, half of each head rotated",
            "qwen2, windows from the second layer on",
            "qwen2_moe, some layers dense, no biases",
            "deepseek_v2, queries as they are",
            "deepseek_v3, groups and YaRN",
        )
    },
}


def both(shape: Shape) -> tuple[Transformer, Transformer]:
    """A model that holds its matrices in bfloat16, and one with the same values in float32."""
    ours, wide = narrow(shaken(shape)), shaken(shape)
    with torch.no_grad():
        for weight, held in zip(wide.parameters(), ours.parameters(), strict=True):
            weight.copy_(held)
    return ours, wide


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@torch.no_grad()
def test_decoding_gives_what_the_same_weights_give_in_float32(shape, threads):
    (ours, wide), before = both(shape), torch.get_num_threads()
    torch.set_num_threads(threads)
    decoder = Decoder(ours, 3, 32)

    def read(ids: list[list[int]], slots: list[int]) -> Tensor:
        if all(len(row) == 1 for row in ids):
            return decoder.step([row[0] for row in ids], slots)
        return decoder.read(ids, slots)

    play(wide, read, decoder.cache.free)
    torch.set_num_threads(before)
    assert compiles(ours) == (native.module is not None and not shape.logit_cap)


@compiled
@pytest.mark.parametrize("threads", [1, 3, 16])
@pytest.mark.parametrize("sequences", [1, 2, 3, 13])
@pytest.mark.parametrize("shape", [WIDE, NARROW], ids=["wide", "narrow experts"])
@torch.no_grad()
def test_sizes_that_no_tile_fits_give_the_very_values_of_float32(shape, sequences, threads):
    """Both kernels sum in one order: they are equal but for what a compiler reorders."""
    (ours, wide), before = both(shape), torch.get_num_threads()
    ids = torch.randint(61, (sequences, 9), generator=torch.Generator().manual_seed(0))
    torch.set_num_threads(threads)
    decoders = [Decoder(model, sequences, 16) for model in (ours, wide)]
    first, second = (decoder.read(ids[:, :4].tolist()) for decoder in decoders)
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)
    for place in range(4, 9):
        first, second = (decoder.step(ids[:, place].tolist()) for decoder in decoders)
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("aside", [False, True], ids=["compiled", "twin"])
def test_whole_sequences_are_read_as_in_float32_also_where_something_learns(shape, aside):
    ours, wide = both(shape)
    ids = torch.randint(61, (3, 17), generator=torch.Generator().manual_seed(0))
    with native.set_aside():
        expected = wide(ids)
    if aside:
        with native.set_aside():
            torch.testing.assert_close(ours(ids), expected, atol=2e-5, rtol=1e-5)
        return
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), expected, atol=2e-5, rtol=1e-5)
    ours.norm_D.grad = wide.norm_D.grad = None
    for model in (ours, wide):
        model.loss(ids)[0].backward()
    for name, weight in ours.named_parameters():
        if weight.dtype == torch.float32:
            torch.testing.assert_close(weight.grad, wide.get_parameter(name).grad, atol=1e-4, rtol=1e-4, msg=name)


@torch.no_grad()
def test_rows_visit_their_own_numbers_of_experts():
    ours, wide = both(replace(SPARSE, top_k=4))
    top_k_LB, ids = torch.tensor([[1, 4, 2], [2, 4, 1]]), random_windows(ours, 3)[:, :6]
    decoder = Decoder(ours, 3, 8)
    decoder.read(ids[:, :5].tolist(), None, top_k_LB)
    expected = wide(ids, routing=Routing(top_k_LB=top_k_LB))[:, -1]
    torch.testing.assert_close(decoder.step(ids[:, 5].tolist(), None, top_k_LB), expected, atol=2e-5, rtol=1e-5)


@compiled
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("share", [0.89, 0.31])
@pytest.mark.parametrize("shape", [DENSE, replace(WIDE, dense_layers=2)], ids=["dense", "wide"])
@torch.no_grad()
def test_a_share_of_the_neurons_is_that_of_float32(shape, share, threads):
    """By listed neurons and, for more sequences, by all."""
    (ours, wide), before = both(shape), torch.get_num_threads()
    gates = measured_gates(wide, random_windows(wide))
    turned, expected = (at_setting(model, Turned(neurons=share), gates) for model in (ours, wide))
    assert compiles(turned)
    torch.set_num_threads(threads)
    for sequences in (1, 2, 5):
        ids = random_windows(wide, sequences, seed=2)[:, :9]
        decoded_alike(turned, ids)
        decoder = Decoder(turned, sequences, 16)
        decoder.read(ids[:, :8].tolist())
        torch.testing.assert_close(decoder.step(ids[:, 8].tolist()), expected(ids)[:, -1], atol=2e-5, rtol=1e-5)
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [DENSE, SPARSE, FAMILIES["deepseek_v3"]], ids=["dense", "sparse", "latent"])
def test_the_greedy_ids_are_those_of_float32_with_drafts_too(shape):
    ours, wide = both(replace(shape, mtp_layers=1))
    prompts = random_windows(ours, 3).tolist()
    first, second = (
        list(islice(generate_together(model, prompts, 12, Sampling(temperature=0.0)), 12)) for model in (ours, wide)
    )
    assert first == second
    assert list(speculate(ours, prompts[0], 12)) == [row[0] for row in second]


def stored(
    model: Transformer, folder: Path, tokenizer: Tokenizer | None = None, *, but: tuple[str, ...] = EXACT
) -> Path:
    """A folder with the model's matrices in bfloat16, but those of these parts."""

    def rounded(tensor: NamedTensor) -> NamedTensor:
        if len(tensor.size) < 2 or tensor.name.part in but:
            return tensor
        return replace(tensor.mapped(lambda values: values.to(torch.bfloat16)), dtype=torch.bfloat16)

    write_checkpoint(folder, model.shape, map(rounded, stream_of(model)), tokenizer)
    return folder


@pytest.mark.parametrize("shape", [DENSE, SPARSE, FAMILIES["qwen2_moe"]], ids=["dense", "sparse", "shared gate"])
def test_matrices_are_held_as_a_folder_has_them_and_all_else_in_float32(tmp_path: Path, shape):
    model = shaken(shape)
    held = load_as_stored(stored(model, tmp_path / "narrow"))
    assert weights_dtype(held) == ("bfloat16" if native.module is not None else "float32")
    for name, weight in load_as_stored(stored(model, tmp_path / "narrow"), "bfloat16").named_parameters():
        leaf, exact = name.rpartition(".")[2], model.get_parameter(name)
        rounded = weight.dim() > 1 and leaf not in ("w_router_DE", "w_shared_gate_D1")
        assert weight.dtype == (torch.bfloat16 if rounded else torch.float32), name
        assert torch.equal(weight, exact.to(weight.dtype)), name
    wide = load_as_stored(tmp_path / "narrow", "float32")
    assert weights_dtype(wide) == "float32"
    assert all(map(torch.equal, wide.parameters(), load(tmp_path / "narrow").parameters()))


def test_one_matrix_in_float32_keeps_a_folder_in_float32_unless_told_otherwise(tmp_path: Path):
    folder = stored(shaken(SPARSE), tmp_path / "mixed", but=("attention.output",))
    assert weights_dtype(load_as_stored(folder)) == "float32"
    assert weights_dtype(load_as_stored(folder, "bfloat16")) == "bfloat16"
    save_checkpoint(shaken(SPARSE), tmp_path / "exact")
    assert weights_dtype(load_as_stored(tmp_path / "exact")) == "float32"


def test_a_copy_of_a_narrow_model_is_narrow_too():
    ours = narrow(shaken(DENSE))
    again = copy.deepcopy(ours)
    assert weights_dtype(again) == "bfloat16"
    ids = random_windows(ours, 2)
    with torch.no_grad():
        assert torch.equal(ours(ids), again(ids))
