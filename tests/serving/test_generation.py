"""Text out: the same with a cache as without, and drawn as asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.kernels import native
from sparsedial.model.transformer import initialise
from sparsedial.serving.decoder import Decoder, compiles
from sparsedial.serving.generation import Sampling, generate, generate_together, probabilities
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Layer, with_layers
from tests.model.shapes import DENSE, FAMILIES, GROUPED, SPARSE, UNEQUAL, shaken

MODEL = initialise(Ladder(vocab_size=64, context=24).shape(16, 8), 0).eval()
GREEDY = Sampling(temperature=0.0)
UNEQUAL_LATENT = with_layers(
    FAMILIES["deepseek_v3, groups and YaRN"],
    [Layer(experts=4, top_k=2, d_expert=30), Layer(d_ff=5), Layer(experts=16, top_k=5, d_expert=3)],
)


def greedy_by_hand(model, ids: list[int], count: int) -> list[int]:
    """The likeliest tokens, reading everything anew for each."""
    ids = list(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[-count:]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_decodes_as_it_reads(family, threads):
    model = shaken(FAMILIES[family])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    assert list(generate(model, [3, 14, 15], 20, GREEDY)) == greedy_by_hand(model, [3, 14, 15], 20)
    torch.set_num_threads(before)


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
        FAMILIES["mixtral, with a window"],
        replace(SPARSE, experts=8, expert_groups=4, kept_groups=2),
        FAMILIES["deepseek_v2, groups and scaling"],
        FAMILIES["deepseek_v3, groups and YaRN"],
        replace(FAMILIES["deepseek_v3, groups and YaRN"], q_lora_rank=0),
    ],
)
@torch.no_grad()
def test_compiled_decoding_gives_the_models_logits(shape, threads):
    """Three sequences of other lengths, padded on their left."""
    model = shaken(shape)
    ids = torch.randint(64, (3, 20), generator=torch.Generator().manual_seed(0))
    real = torch.arange(20) >= torch.tensor([[0], [4], [9]])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    decoder = Decoder(model, 3, 32)
    decoder.read(ids[:, :12], real[:, :12])
    for place in range(12, 20):
        got = decoder.read(ids[:, place : place + 1])
        expected = model(ids[:, : place + 1], real_BS=real[:, : place + 1])[:, -1]
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
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
    model = shaken(shape)
    ids = torch.randint(61, (sequences, 9), generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    decoder = Decoder(model, sequences, 16)
    decoder.read(ids[:, :4])
    for place in range(4, 9):
        expected = model(ids[:, : place + 1])[:, -1]
        torch.testing.assert_close(decoder.read(ids[:, place : place + 1]), expected, atol=1e-5, rtol=1e-5)
    torch.set_num_threads(before)
    assert compiles(model)


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
    decoder.read(ids[:, :3])
    got = decoder.read(ids[:, 3:])
    torch.set_num_threads(before)
    assert got[1].isnan().all()
    torch.testing.assert_close(got[::2], model(ids[::2])[:, -1], atol=1e-5, rtol=1e-5)


def test_sequences_go_on_together_as_each_would_alone():
    prompts = [[3, 14, 15, 9, 2], [6], [5, 3, 5]]
    sampling = Sampling(temperature=1.0, seed=5)
    together = list(generate_together(MODEL, prompts, 40, sampling))  # beyond the context
    for number, prompt in enumerate(prompts):
        alone = generate(MODEL, prompt, 15, Sampling(temperature=1.0, seed=5 + number))
        assert [row[number] for row in together[:15]] == list(alone)


@torch.no_grad()
def test_greedy_text_with_a_cache_equals_reading_everything_again():
    ids = [3, 14, 15]
    expected = list(ids)
    for _ in range(20):
        expected.append(int(MODEL(torch.tensor([expected]))[0, -1].argmax()))
    assert list(generate(MODEL, ids, 20, GREEDY)) == expected[3:]


def test_text_longer_than_the_context_goes_on_from_its_newer_half():
    assert len(list(generate(MODEL, [1, 2, 3], 60, GREEDY))) == 60
    assert len(list(generate(MODEL, list(range(40)), 5, GREEDY))) == 5


def test_a_seed_repeats_and_another_differs():
    def drawn(seed):
        return list(generate(MODEL, [5], 20, Sampling(temperature=1.0, seed=seed)))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_generation_stops_at_the_end_token():
    first = next(iter(generate(MODEL, [5], 1, GREEDY)))
    assert list(generate(MODEL, [5], 10, GREEDY, end_token=first)) == []


def test_top_k_and_top_p_leave_the_likeliest():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    assert (probabilities(logits, Sampling(temperature=1.0, top_k=2)) > 0).tolist() == [True, True, False, False]
    assert (probabilities(logits, Sampling(temperature=1.0, top_p=0.6)) > 0).tolist() == [True, True, False, False]
    assert (probabilities(logits, Sampling(temperature=1.0, top_p=0.01)) > 0).tolist() == [True, False, False, False]
    torch.testing.assert_close(
        probabilities(logits, Sampling(temperature=1.0, top_p=0.9)).float(),
        torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95,
    )


def test_temperature_sharpens():
    logits = torch.tensor([1.0, 0.0])
    cold, warm = (probabilities(logits, Sampling(temperature=value))[0] for value in (0.5, 2.0))
    assert cold > warm
    assert probabilities(logits, GREEDY).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "values", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}, {"seed": -1}, {"seed": 2**70}]
)
def test_impossible_sampling_is_refused(values):
    with pytest.raises(UserError, match="generate"):
        Sampling(**values)


def test_an_empty_prompt_is_refused():
    with pytest.raises(UserError, match="prompt"):
        next(iter(generate(MODEL, [], 5, GREEDY)))


@torch.no_grad()
def test_a_decoder_steps_as_it_reads_and_refuses_alike():
    model = initialise(replace(SPARSE, context=5000), 0).eval()
    reading, stepping = Decoder(model, 2, 4100), Decoder(model, 2, 4100)
    for decoder in (reading, stepping):
        decoder.read(torch.ones(2, 4095, dtype=torch.long))
    for token in range(4):  # beyond the rotary table that a new model holds
        expected = reading.read(torch.full((2, 1), token)).clone()
        torch.testing.assert_close(stepping.step([token, token]), expected, atol=0, rtol=0)
    for ids, says in (([1, 64], "outside 0..63"), ([-1, 1], "outside 0..63"), ([1], "sequence")):
        with pytest.raises(UserError, match=says):
            stepping.step(ids)
    stepping.step([1, 1])
    with pytest.raises(UserError, match="4101 positions are more than its cache"):
        stepping.step([1, 1])


def test_a_decoder_reads_no_further_than_it_has_room():
    decoder = Decoder(initialise(DENSE, 0), 1, 4)
    decoder.read(torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(UserError, match="5 positions are more than its cache of 4"):
        decoder.read(torch.zeros(1, 1, dtype=torch.long))


PADDINGS = {
    "left, in two parts": ([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]], 3),
    "a whole part, left": ([[0, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1]], 3),
    "right": ([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], 6),
    "between": ([[1, 1, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1]], 6),
}


@pytest.mark.parametrize("padding", PADDINGS)
@torch.no_grad()
def test_a_decoder_reads_past_padding_wherever_it_is(padding):
    real, part = torch.tensor(PADDINGS[padding][0]).bool(), PADDINGS[padding][1]
    model = shaken(GROUPED)
    ids = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(0))
    real = torch.cat([real, torch.ones(2, 3, dtype=torch.bool)], 1)
    decoder = Decoder(model, 2, 12)
    for start in range(0, 6, part):
        decoder.read(ids[:, start : start + part], real[:, start : start + part])
    for place in range(6, 9):
        got = decoder.read(ids[:, place : place + 1])
        expected = model(ids[:, : place + 1], real_BS=real[:, : place + 1])[:, -1]
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
