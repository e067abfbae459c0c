"""The model: causal, cached as uncached, refusing what it cannot take; multi-token prediction, caps and latents."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.kernels import native
from sparsedial.model import transformer
from sparsedial.model.rotary import attention_scale, rotary_frequencies, rotary_table
from sparsedial.model.transformer import Routing, initialise
from sparsedial.shape.counts import total_parameters
from tests.model.shapes import DENSE, FAMILIES, GROUPED, SPARSE, UNEQUAL, shaken

SHAPES = [SPARSE, DENSE, GROUPED, UNEQUAL, *(FAMILIES[name] for name in FAMILIES if "," in name)]
IDS = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_a_position_sees_nothing_after_it(shape):
    model = shaken(shape)
    changed = IDS.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 64
    torch.testing.assert_close(model(changed)[:, :9], model(IDS)[:, :9], atol=1e-6, rtol=1e-5)


def test_layers_that_differ_hold_the_parameters_that_are_counted():
    model = initialise(UNEQUAL, 0)
    assert sum(parameter.numel() for parameter in model.parameters()) == total_parameters(UNEQUAL)


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (torch.full((1, 4), 64), "outside 0..63"),
        (torch.full((1, 4), -1), "outside 0..63"),
        (torch.zeros(1, 33, dtype=torch.long), "more than the model's context of 32"),
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


@pytest.mark.parametrize("shape", [SPARSE, FAMILIES["deepseek_v3"]])
def test_the_loss_of_short_ids_is_that_of_long_ones(shape):
    """Up to the last bit, with the targets of multi-token prediction and the gradient."""
    model = shaken(replace(shape, mtp_layers=1))
    found = []
    for ids in (IDS, IDS.int()):
        losses = model.loss(ids, 0.1, 0.1, 0.3)
        found.append([*losses, *torch.autograd.grad(losses[0], list(model.parameters()))])
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


@pytest.mark.parametrize("depth", [1, 2])
def test_windows_are_longer_than_the_multi_token_predictions(depth):
    model = initialise(replace(DENSE, mtp_layers=depth), 0)
    with pytest.raises(UserError, match=f"windows of {depth + 1} ids are too short for {depth} multi-token") as error:
        model.loss(IDS[:, : depth + 1], mtp_weight=0.1)
    assert f"a context of {depth + 1}" in str(error.value.hint)
    assert model.loss(IDS[:, : depth + 2], mtp_weight=0.1)[0].isfinite()
    assert model.loss(IDS[:, :2])[0].isfinite()


def prediction_by_hand(module, x_BSD, next_BSD):
    """Eq. 21 and 22 of DeepSeek-V3 in plain steps, for one head of attention and a dense layer."""
    shape, block = module.block.attention.shape, module.block

    def normed(x, weight):
        return x / (x.square().mean(-1, keepdim=True) + shape.norm_eps).sqrt() * weight

    def turned(x_SC):
        half = shape.head_dim // 2
        angles = torch.arange(len(x_SC)).float().unsqueeze(1) * shape.rope_theta ** -(torch.arange(half) / half)
        first, second = x_SC[:, :half], x_SC[:, half:]
        return torch.cat(
            [first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], 1
        )

    results = []
    for x_SD, next_SD in zip(x_BSD, next_BSD, strict=True):
        above, below = module.w_join_JD.chunk(2)
        h_SD = normed(x_SD, module.stream_norm_D) @ below + normed(next_SD, module.embedding_norm_D) @ above
        q, k, v = (normed(h_SD, block.attention_norm_D) @ block.attention.w_qkv_DQ).chunk(3, 1)
        q, k = (turned(normed(y, w)) for y, w in ((q, block.attention.q_norm_C), (k, block.attention.k_norm_C)))
        scores = (q @ k.T / shape.head_dim**0.5).masked_fill(torch.ones(len(q), len(q)).triu(1).bool(), -torch.inf)
        h_SD = h_SD + scores.softmax(1) @ v @ block.attention.w_out_QD
        gate, up = (normed(h_SD, block.feed_forward_norm_D) @ block.feed_forward.w_in_DH).chunk(2, 1)
        results.append(h_SD + (gate * gate.sigmoid() * up) @ block.feed_forward.w_out_FD)
    return torch.stack(results)


@torch.no_grad()
def test_multi_token_prediction_is_that_of_its_source():
    """Both norms, the order of the halves, a whole block; then the shared table behind the module's own norm."""
    shape = replace(DENSE, mtp_layers=2, heads=1, kv_heads=1, qk_norm="head", tied_embeddings=False)
    model = shaken(shape)
    stream = model.stream(IDS[:, :-1], model.place(IDS[:, :-1]), Routing())
    expected = 0.0
    for depth, module in enumerate(model.predictions, start=1):
        following = model.embedding_VD[IDS[:, depth:-1]]
        place = model.place(IDS[:, depth:-1])
        theirs = prediction_by_hand(module, stream[:, :-1], following)
        stream = module(stream[:, :-1], following, place, Routing())
        torch.testing.assert_close(stream, theirs, atol=1e-5, rtol=1e-5)
        rms = (theirs.square().mean(-1, keepdim=True) + shape.norm_eps).sqrt()
        logits = theirs / rms * module.norm_D @ model.unembedding_VD.T
        expected -= float(logits.log_softmax(2).gather(2, IDS[:, depth + 1 :, None]).mean()) / 2
    total, entropy = model.loss(IDS, mtp_weight=1.0)
    assert float(total - entropy) == pytest.approx(expected, rel=1e-5)


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


@pytest.mark.parametrize("gate", ["sigmoid", "softmax"])
@torch.no_grad()
def test_an_expert_that_top_p_drops_takes_no_part(gate):
    """Neither in a layer's output, whatever it holds, nor in its load."""
    model = shaken(replace(SPARSE, top_p=0.2, gate=gate))
    (layer, *_), norm = model.sparse_feed_forwards, torch.ones(16)
    x = torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(3))
    routing = Routing(losses=[])
    before = layer(x, norm, 1e-6, routing)
    (used,) = layer.load_E.nonzero()  # no two of 8 experts come near 0.2 together
    others = torch.arange(8) != used
    layer.w_out_EFD[others] = 1e9
    assert torch.equal(layer(x, norm, 1e-6, routing), before)
    assert int(layer.load_E[used]) == 2


@pytest.mark.parametrize("autocast", [True, False])
@torch.no_grad()
def test_the_router_works_in_fp32_whatever_the_rest_is_in(autocast):
    """Logits of 4 and up to 7/512 more: in bfloat16 they would all be 4."""
    layer = initialise(SPARSE, 0).sparse_feed_forwards[0]
    x = torch.zeros(1, 1, 16)
    x[..., :2] = torch.tensor([1.0, 1 / 2048])
    layer.w_router_DE.zero_()
    layer.w_router_DE[0] = 1
    layer.w_router_DE[1] = torch.arange(8)
    if not autocast:
        layer, x = layer.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        layer(x, torch.ones(16, dtype=x.dtype), 1e-6, Routing(losses=[]))
    assert layer.load_E.nonzero().flatten().tolist() == list(range(8 - SPARSE.top_k, 8))


TURNED = {
    "sigmoid": SPARSE,
    "groups": FAMILIES["deepseek_v2, groups and scaling"],
    "not normalised": FAMILIES["olmoe"],
    "top-p": replace(SPARSE, top_p=0.7),
}


@pytest.mark.parametrize("name", TURNED)
@torch.no_grad()
def test_every_sequence_of_a_batch_visits_its_own_number_of_experts(name):
    """Each gets what it gets alone from a model of the same weights with that top-k."""
    shape = replace(TURNED[name], top_k=3)
    model = shaken(shape)
    ids, top_k = IDS[[0, 1, 0]], torch.tensor([1, 3, 2])
    logits = model(ids, routing=Routing(top_k_LB=top_k.expand(shape.layers, -1)))
    for row, k in enumerate(top_k.tolist()):
        smaller = initialise(replace(shape, top_k=k), 0).eval()
        smaller.load_state_dict(model.state_dict())
        torch.testing.assert_close(logits[row], smaller(ids[row : row + 1])[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_every_layer_may_visit_its_own_number_of_experts():
    model = shaken(UNEQUAL)
    k = [1, 2, 3, 9]  # a dense layer; fewer than its own; all; more than it has
    smaller = replace(UNEQUAL, top_k=3, own_layers=(*UNEQUAL.own_layers[:3], replace(UNEQUAL.own_layers[3], top_k=1)))
    other = initialise(smaller, 0).eval()
    other.load_state_dict(model.state_dict())
    logits = model(IDS, routing=Routing(top_k_LB=torch.tensor(k)[:, None].expand(-1, 2)))
    torch.testing.assert_close(logits, other(IDS))
    fewer = model(IDS, routing=Routing(top_k_LB=torch.tensor([1, 1, 3, 1])[:, None].expand(-1, 2)))
    assert (fewer - logits).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("top_k", "says"),
    [
        (torch.ones(2, 3, dtype=torch.long), "not int64 for each of 2 layers and 2 sequences"),
        (torch.ones(1, 2, dtype=torch.long), "not int64 for each"),
        (torch.ones(2, dtype=torch.long), "not int64 for each"),
        (torch.ones(2, 2), "of float32, not int64"),
        (torch.zeros(2, 2, dtype=torch.long), "at least one expert, not 0"),
    ],
)
def test_numbers_of_experts_that_fit_no_model_are_refused(top_k, says):
    with pytest.raises(UserError, match=says):
        initialise(replace(SPARSE, layers=2), 0)(IDS, routing=Routing(top_k_LB=top_k))


def test_a_module_that_nothing_is_asked_of_keeps_its_routing_bias():
    model = initialise(replace(SPARSE, mtp_layers=1), 0)
    *used, unused = model.sparse_feed_forwards
    model.loss(IDS)
    for layer in model.sparse_feed_forwards:
        layer.balance(0.01)
    assert all(layer.bias_E.abs().max() > 0 for layer in used)
    assert torch.equal(unused.bias_E, torch.zeros(8))
