"""Decoding: the compiled kernel gives the model's logits, whatever the sizes, slots and threads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.kernels import native
from sparsedial.model.decoder import Decoder, alike, compiles
from sparsedial.model.transformer import Routing, Transformer, initialise
from sparsedial.shape.shape import Layer, with_layers
from tests.model.shapes import DENSE, FAMILIES, GROUPED, SPARSE, UNEQUAL, shaken
from tests.model.test_cache import play

UNEQUAL_LATENT = with_layers(
    FAMILIES["deepseek_v3, groups and YaRN"],
    [Layer(experts=4, top_k=2, d_expert=30), Layer(d_ff=5), Layer(experts=16, top_k=5, d_expert=3)],
)

ONES = replace(SPARSE, top_k=4, gate="ones", normalize_gates=False, routing_bias=False)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "shape",
    [
        SPARSE,
        DENSE,
        GROUPED,
        UNEQUAL,
        UNEQUAL_LATENT,
        FAMILIES["olmoe"],
        FAMILIES["glm4_moe, half of each head rotated"],
        FAMILIES["qwen2, windows from the second layer on"],
        FAMILIES["qwen2_moe, some layers dense, no biases"],
        FAMILIES["qwen2_moe, windows from the second layer on"],
        FAMILIES["mixtral, with a window"],
        replace(SPARSE, experts=8, expert_groups=4, kept_groups=2),
        ONES,
        replace(SPARSE, top_k=4, top_p=0.6),
        FAMILIES["deepseek_v2, groups and scaling"],
        FAMILIES["deepseek_v3, groups and YaRN"],
        replace(FAMILIES["deepseek_v3, groups and YaRN"], q_lora_rank=0),
    ],
)
@torch.no_grad()
def test_compiled_decoding_gives_the_models_logits_in_every_slot(shape, threads):
    model, before = shaken(shape), torch.get_num_threads()
    torch.set_num_threads(threads)
    decoder = Decoder(model, 3, 32)

    def read(ids: list[list[int]], slots: list[int]) -> Tensor:
        if all(len(row) == 1 for row in ids):
            return decoder.step([row[0] for row in ids], slots)
        return decoder.read(ids, slots)

    play(model, read, decoder.cache.free)
    torch.set_num_threads(before)
    assert compiles(model) == (native.module is not None)


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
@pytest.mark.parametrize("threads", [1, 3, 16])
@pytest.mark.parametrize("sequences", [1, 2, 3, 13])
@torch.no_grad()
def test_compiled_decoding_of_sizes_that_no_tile_fits(sequences, threads):
    """Experts read by one row, by two, by some that lie apart, and split between threads; first a wide dense layer."""
    shape = replace(
        GROUPED, d_model=72, heads=3, kv_heads=1, head_dim=24, d_ff=1100, dense_layers=1, experts=5, top_k=2,
        shared_experts=1, d_expert=84, vocab_size=61,
    )  # fmt: skip
    steps_as_the_model(shaken(shape), sequences, threads, steps=5)


def steps_as_the_model(model: Transformer, sequences: int, threads: int, steps: int) -> None:
    """After four ids of each sequence, compiled steps give what the whole model gives."""
    ids = torch.randint(61, (sequences, 4 + steps), generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    decoder = Decoder(model, sequences, 16)
    decoder.read(ids[:, :4].tolist())
    for place in range(4, 4 + steps):
        expected = model(ids[:, : place + 1])[:, -1]
        torch.testing.assert_close(decoder.step(ids[:, place].tolist()), expected, atol=1e-5, rtol=1e-5)
    torch.set_num_threads(before)
    assert compiles(model)


NARROW = replace(
    GROUPED, d_model=72, heads=3, kv_heads=1, head_dim=24, d_ff=0, experts=20, top_k=9, shared_experts=6, d_expert=12,
    vocab_size=61, gate="ones", normalize_gates=False,
)  # fmt: skip


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("sequences", [1, 2, 13])
@pytest.mark.parametrize(("width", "top_k"), [(12, 9), (12, 20), (4, 3), (28, 20), (32, 2), (36, 2), (10, 9)])
@torch.no_grad()
def test_compiled_decoding_of_narrow_experts_one_after_another(width, top_k, sequences, threads):
    """Widths of a few whole vectors, one too wide and one of no whole vectors; all experts and some of them."""
    steps_as_the_model(shaken(replace(NARROW, d_expert=width, top_k=top_k)), sequences, threads, steps=3)


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
@torch.no_grad()
def test_with_all_experts_on_and_gates_of_ones_decoding_reads_no_router():
    model = shaken(replace(NARROW, top_k=20))
    ids, decoder = [[1, 2, 3], [4, 5, 6]], Decoder(model, 2, 8)
    decoder.read(ids)
    expected = model(torch.tensor([[*row, 7] for row in ids]))[:, -1]
    for part in model.sparse_feed_forwards:
        part.w_router_DE.fill_(float("nan"))
    torch.testing.assert_close(decoder.step([7, 7]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@torch.no_grad()
def test_a_sequence_that_is_no_number_harms_no_other(threads):
    """Every expert's score is then not a number; the other sequences, and the memory beyond, stay what they are."""
    shape = replace(GROUPED, experts=16, top_k=8, d_expert=8, d_ff=0, tied_embeddings=False)
    model = shaken(shape)
    model.embedding_VD[5] = float("nan")
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5], [7, 8, 9, 10]])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    decoder = Decoder(model, 3, 8)
    decoder.read(ids[:, :3].tolist())
    got = decoder.step(ids[:, 3].tolist())
    torch.set_num_threads(before)
    assert got[1].isnan().all()
    torch.testing.assert_close(got[::2], model(ids[::2])[:, -1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "shape",
    [
        replace(SPARSE, top_k=4),
        replace(SPARSE, top_k=4, top_p=0.6),
        ONES,
        UNEQUAL,
        FAMILIES["deepseek_v3, groups and YaRN"],
    ],
)
@torch.no_grad()
def test_every_row_visits_its_own_number_of_experts(shape, threads):
    """Requests of several settings share a step, and each gets what it would get alone."""
    model, before = shaken(shape), torch.get_num_threads()
    torch.set_num_threads(threads)
    top_k_LB = torch.tensor([[1, 4, 2, 3], [2, 4, 1, 1]]).repeat(2, 1)[: shape.layers]
    ids = torch.randint(64, (4, 9), generator=torch.Generator().manual_seed(0))
    decoder = Decoder(model, 5, 16)
    decoder.read([row[: 5 - slot] for slot, row in enumerate(ids.tolist())], [4, 2, 1, 0], top_k_LB)
    for step in range(4):
        got = decoder.step([row[5 - slot + step] for slot, row in enumerate(ids.tolist())], [4, 2, 1, 0], top_k_LB)
        for row in range(4):
            alone = Routing(top_k_LB=top_k_LB[:, row : row + 1])
            expected = model(ids[row : row + 1, : 6 - row + step], routing=alone)[0, -1]
            torch.testing.assert_close(got[row], expected, atol=2e-5, rtol=1e-5)
    torch.set_num_threads(before)


@torch.no_grad()
def test_a_decoder_steps_as_it_reads_and_refuses_alike():
    model = initialise(replace(SPARSE, context=5000), 0).eval()
    reading, stepping = Decoder(model, 2, 4100), Decoder(model, 2, 4100)
    for decoder in (reading, stepping):
        decoder.read([[1] * 4095, [1] * 4000])
    for token in range(4):  # beyond the rotary table that a new model holds
        expected = reading.read([[token], [token]])
        torch.testing.assert_close(stepping.step([token, token]), expected, atol=1e-5, rtol=1e-5)
    for ids, slots, says in (
        ([1, 64], None, "outside 0..63"),
        ([-1, 1], None, "outside 0..63"),
        ([1], None, "slots"),
        ([1, 1], [0, 0], "slots"),
        ([1, 1], [0, 2], "slots"),
        ([1, 1], [-1, 0], "slots"),
        ([1, 1], [0], "slots"),
    ):
        with pytest.raises(UserError, match=says):
            stepping.step(ids, slots)
    stepping.step([1, 1])
    with pytest.raises(UserError, match="4101 positions are more than the cache's"):
        stepping.step([1, 1])
    stepping.step([1], [1])
    assert stepping.cache.filled == [4100, 4006]


def test_a_decoder_reads_no_further_than_it_has_room():
    decoder = Decoder(initialise(DENSE, 0), 1, 4)
    decoder.read([[0] * 4])
    with pytest.raises(UserError, match="5 positions are more than the cache's 4"):
        decoder.read([[0]])


def test_rows_are_read_together_that_pad_little_and_are_not_too_many():
    lengths = [3, 100, 90, 4, 40, 99, 4]
    assert list(alike(lengths, 250)) == [[1, 5], [2], [4], [3, 6, 0]]
    assert list(alike([5000], 250)) == [[0]]
    assert list(alike([], 250)) == []
