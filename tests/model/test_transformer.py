"""The model: causal, cached as uncached, refusing what it cannot take; multi-token prediction, caps and latents."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.kernels import native
from sparsedial.model import transformer
from sparsedial.model.attention import Cache
from sparsedial.model.rotary import attention_scale, rotary_frequencies, rotary_table
from sparsedial.model.transformer import initialise
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.shape import Shape
from tests.model.shapes import DENSE, FAMILIES, GROUPED, LATENT, SPARSE, V3, shaken

SHAPES = [SPARSE, DENSE, GROUPED, *(FAMILIES[name] for name in FAMILIES if "," in name)]
IDS = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_a_position_sees_nothing_after_it(shape):
    model = shaken(shape)
    changed = IDS.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 64
    torch.testing.assert_close(model(changed)[:, :9], model(IDS)[:, :9], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
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
        ([[1, 2]], "not a list"),
        (torch.tensor(1), "of 0 dimensions"),
        (torch.tensor([1, 2]), "of 1 dimensions"),
        (torch.zeros(1, 2, 3, dtype=torch.long), "of 3 dimensions"),
        (torch.zeros(1, 4, dtype=torch.int16), "not int16"),
        (torch.zeros(1, 4, dtype=torch.complex64), "not complex64"),
    ],
)
def test_bad_ids_are_refused_in_one_line(ids, says):
    model = initialise(DENSE, 0)
    for call in (model, model.loss):
        if call == model or torch.as_tensor(ids).shape != (1, 33):  # whose last id is a target alone
            with pytest.raises(UserError, match=says):
                call(ids)


@pytest.mark.parametrize("target", [-100, -1, 64])
def test_a_last_target_outside_the_vocabulary_is_refused(target):
    with pytest.raises(UserError, match=r"outside 0..63"):
        initialise(DENSE, 0).loss(torch.tensor([[1, 2, target]]))


def test_what_is_padding_is_said_of_every_id():
    with pytest.raises(UserError, match="real_BS"):
        initialise(DENSE, 0)(torch.zeros(2, 4, dtype=torch.long), real_BS=torch.ones(2, 3, dtype=torch.bool))


def test_the_same_seed_gives_the_same_weights():
    for (name, first), second in zip(
        initialise(SPARSE, 3).named_parameters(), initialise(SPARSE, 3).parameters(), strict=True
    ):
        assert torch.equal(first, second), name


def test_ids_that_are_no_whole_numbers_are_refused():
    with pytest.raises(UserError, match="not float32"):
        initialise(DENSE, 0)(torch.zeros(1, 4))


@torch.no_grad()
def test_a_window_hides_what_lies_before_it():
    model = shaken(replace(DENSE, window=4))
    changed = IDS.clone()
    changed[:, :3] = (changed[:, :3] + 1) % 64
    reach = 3 + (4 - 1) * DENSE.layers  # positions that hear of the first three, each layer a window further
    torch.testing.assert_close(model(changed)[:, reach:], model(IDS)[:, reach:], atol=1e-6, rtol=1e-5)
    assert (model(changed)[:, 3] - model(IDS)[:, 3]).abs().max() > 1e-3


@torch.no_grad()
def test_a_cap_bounds_logits_and_keeps_small_ones():
    model = shaken(replace(DENSE, logit_cap=0.0))
    plain = 50 * model(IDS)
    with torch.no_grad():
        model.norm_D.mul_(50)
    model.shape = replace(DENSE, logit_cap=3.0)
    assert model(IDS).abs().max() <= 3
    torch.testing.assert_close(model(IDS), 3 * torch.tanh(plain / 3), atol=1e-4, rtol=1e-4)


def test_the_next_tokens_loss_is_that_of_the_logits():
    for shape in (DENSE, replace(DENSE, logit_cap=2.0), FAMILIES["deepseek_v3"]):
        model = shaken(shape)
        total, entropy = model.loss(IDS)
        expected = torch.nn.functional.cross_entropy(model(IDS[:, :-1]).flatten(0, 1), IDS[:, 1:].flatten())
        torch.testing.assert_close(entropy, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(total, entropy, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("depth", [1, 2])
def test_multi_token_prediction_learns_the_token_after_next(depth):
    """A text whose every second token names the one two later: the module learns it, beside the model's own loss."""
    shape = replace(SPARSE, mtp_layers=depth, layers=1)
    model = initialise(shape, 0)
    assert sum(p.numel() for p in model.parameters()) == total_parameters(shape, with_mtp=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    make = torch.Generator().manual_seed(3)
    ids = torch.randint(64, (8, 20), generator=make)
    firsts = []
    for _ in range(60):
        total, entropy = model.loss(ids, mtp_weight=1.0)
        firsts.append(float((total - entropy).detach()))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert firsts[0] == pytest.approx(4.2, abs=0.3)  # ln 64 is 4.16
    assert firsts[-1] < 1.0
    total, entropy = model.loss(ids)  # no weight, no cost
    torch.testing.assert_close(total, entropy)


def test_yarn_leaves_fast_channels_and_stretches_slow_ones():
    plain, stretched = (rotary_frequencies(FAMILIES[name]) for name in ("qwen3", "qwen3, YaRN"))
    assert stretched[0] == plain[0]
    assert float(stretched[-1]) == pytest.approx(float(plain[-1]) / 4)


def test_latent_attention_scales_with_its_stretch():
    shape = FAMILIES["deepseek_v3, groups and YaRN"]
    assert attention_scale(replace(shape, rope_scaling=None)) == pytest.approx(10**-0.5)
    assert attention_scale(shape) == pytest.approx(10**-0.5 * (0.1 * 0.7 * 1.3862944 + 1) ** 2)


@torch.no_grad()
def test_a_rotary_table_grows_with_what_is_asked_of_it():
    model = initialise(replace(DENSE, context=1_000_000), 0)
    before = len(model.cosine_SC)
    model(torch.zeros(1, before + 1, dtype=torch.long))
    assert len(model.cosine_SC) == 2 * before
    expected = rotary_table(model.shape, 2 * before)
    assert torch.equal(model.cosine_SC, expected[0])
    assert torch.equal(model.sine_SC, expected[1])


def test_a_step_of_training_follows_one_of_inference(monkeypatch):
    monkeypatch.setattr(transformer, "READY_POSITIONS", 8)
    for kernels in (native.module, None):
        monkeypatch.setattr(native, "module", kernels)
        model = initialise(DENSE, 0)
        with torch.inference_mode():
            model(IDS)
        model.loss(IDS)[0].backward()
        assert model.embedding_VD.grad is not None


def test_a_cache_of_latents_is_small():
    shape = Shape(**LATENT, **V3)
    cache = Cache(shape, 1, 32, torch.device("cpu"), torch.float32)
    assert sum(part.numel() for part in cache.parts) == 32 * shape.layers * (12 + 4)


def test_every_expert_but_the_needed_ones_is_dropped_by_top_p():
    from sparsedial.model.router import within

    gates = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1]])
    assert within(gates, 0.6).tolist() == [[1, 1, 0], [0, 1, 0]]
    assert within(gates, 0.5).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert within(gates, 1.0).tolist() == [[1, 1, 1], [1, 1, 1]]
