"""A dense model whose neurons became experts: with all of them it is the dense one, and it becomes that again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.kernels.reference import swiglu
from sparsedial.model.attention import rms_norm
from sparsedial.model.checkpoint import model_of
from sparsedial.model.decoder import Decoder
from sparsedial.model.router import Routing
from sparsedial.model.transformer import Transformer
from sparsedial.model.turned import at_setting
from sparsedial.model.weights import stream_of
from sparsedial.pruning import splitting
from sparsedial.pruning.joining import joined, weights_digest
from sparsedial.pruning.neurons import keep_neurons, watch_neurons
from sparsedial.pruning.split_sizes import SplitSizes, joined_shape, not_to_split, numbers_by_layer
from sparsedial.pruning.splitting import Split, divided, done, growth
from sparsedial.shape.config import fitting_family, own_config, read_config
from sparsedial.shape.shape import Layer, Shape, with_layers
from sparsedial.shape.turned import Turned, parse_turned
from tests.model.shapes import FAMILIES, shaken
from tests.pruning.planted import FIRST, LETTERS, SECOND, text_of, with_clusters
from tests.pruning.test_experts import IDS
from tests.pruning.test_planted import loss, windows_of

DENSE = {name: shape for name, shape in FAMILIES.items() if not shape.experts}
DENSE["layers of different widths"] = with_layers(FAMILIES["llama"], [Layer(d_ff=40), Layer(d_ff=24)])
SIZES = SplitSizes(experts=6, always=2, top_k=6)


def some(shape: Shape, sizes: SplitSizes = SIZES) -> Split:
    """A drawn division, with a drawn router."""
    make = torch.Generator().manual_seed(4)
    return Split(
        sizes=sizes,
        neurons={
            at: tuple(torch.randperm(shape.layer(at).d_ff, generator=make).tolist()) for at in range(shape.layers)
        },
        routers={at: torch.randn(shape.d_model, sizes.experts, generator=make) for at in range(shape.layers)},
    )


def split_of(model: Transformer, split: Split) -> Transformer:
    return model_of(split.shape(model.shape), split.stream(stream_of(model)))


@pytest.mark.parametrize("always", [0, 2])
@pytest.mark.parametrize("name", DENSE)
@torch.no_grad()
def test_with_all_experts_on_it_is_the_dense_model(name, always):
    dense = shaken(DENSE[name])
    split = split_of(dense, some(dense.shape, SplitSizes(experts=8 - always, always=always, top_k=8 - always)))
    expected = dense(IDS)
    assert (split(IDS) - expected).abs().max() <= 1e-5 * expected.abs().max()
    fewer = at_setting(split, parse_turned("k=3"))(IDS)
    assert (fewer - expected).abs().max() > 1e-3, "fewer experts change nothing: the test would see no fault"


@torch.no_grad()
def test_it_decodes_as_it_reads_at_every_number_of_experts():
    split = split_of(shaken(FAMILIES["qwen3"]), some(FAMILIES["qwen3"]))
    for top_k in (1, 3, 6):
        turned = at_setting(split, Turned(top_k=(top_k,)))
        decoder = Decoder(turned, 1, 20)
        decoder.read([IDS[0, :5].tolist()])
        for at in range(5, 12):
            expected = turned(IDS[:1, : at + 1])[0, -1]
            torch.testing.assert_close(decoder.step([int(IDS[0, at])])[0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_token_with_fewer_experts_gets_the_sum_of_what_they_write():
    """As the dense layer in which other neurons are silent."""
    dense, split = shaken(FAMILIES["llama"]), some(FAMILIES["llama"])
    layer, x_BSD = split_of(dense, split).blocks[0], torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(1))
    part, silenced = dense.blocks[0].feed_forward, shaken(FAMILIES["llama"]).blocks[0].feed_forward
    normed_D = rms_norm(x_BSD, dense.blocks[0].feed_forward_norm_D, 1e-6)[0, 0]
    chosen = (normed_D @ split.routers[0]).topk(2).indices.tolist()
    shared, experts = split.members(0)
    on = [*shared, *(neuron for expert in chosen for neuron in experts[expert])]
    silenced.w_out_FD[[neuron for neuron in range(len(part.w_out_FD)) if neuron not in on]] = 0
    norm_D = dense.blocks[0].feed_forward_norm_D
    expected = silenced(x_BSD, norm_D, 1e-6, Routing())
    got = layer.feed_forward(x_BSD, norm_D, 1e-6, Routing(top_k_LB=torch.tensor([[2], [2]])))
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", DENSE)
def test_what_is_joined_is_what_was_split_bit_for_bit(name, dtype):
    shape = DENSE[name]
    stream = [
        replace(tensor.mapped(lambda values: values.to(dtype)), dtype=dtype) for tensor in stream_of(shaken(shape))
    ]
    split = some(shape)
    back = list(joined(split.stream(stream), tuple(split.neurons.values())))
    assert joined_shape(split.shape(shape)) == shape
    found = {tensor.name: tensor for tensor in back}
    assert len(found) == len(back) == len(stream)
    for tensor in stream:
        values = found[tensor.name].values()
        assert (values.dtype, tuple(values.shape)) == (tensor.dtype, tensor.size) == (dtype, found[tensor.name].size)
        assert torch.equal(values, tensor.values()), str(tensor.name)
    assert weights_digest(back) == weights_digest(reversed(stream))
    other = [tensor.mapped(lambda values: -values) if tensor.name.part == "norm" else tensor for tensor in stream]
    assert weights_digest(other) != weights_digest(stream)


@pytest.mark.parametrize("name", DENSE)
def test_no_family_expresses_it_and_our_own_configuration_does(name):
    shape = SIZES.shape(DENSE[name])
    assert fitting_family(shape) is None
    assert read_config(json.loads(json.dumps(own_config(shape)))) == shape


def test_neurons_of_a_letter_become_its_expert_and_one_expert_loses_nothing(tmp_path):
    windows = windows_of(text_of(tmp_path / "both.txt", FIRST, SECOND))
    model, owners = with_clusters()
    sizes = SplitSizes(experts=len(LETTERS), always=1, top_k=1)
    found = divided(model, torch.from_numpy(windows.ids_WS1), sizes, seed=0)
    shared, experts = found.split.members(1)
    assert {owners[neuron] for neuron in shared} == {-1}, "what all letters use is shared"
    assert sorted(sorted(owners[neuron] for neuron in expert) for expert in experts) == [[at] * 4 for at in range(8)]
    whole = loss(model, windows)
    assert whole < 0.6
    assert abs(loss(split_of(model, found.split), windows) - whole) < 1e-6
    assert loss(split_of(model, found.drawn), windows) > whole + 0.1
    counts = {layer: round(len(one) * sizes.share(1)) for layer, one in found.scores.items()}
    kept = keep_neurons(found.scores, counts)
    removed = model_of(kept.shape(model.shape), kept.stream(stream_of(model)))
    assert loss(removed, windows) > whole + 0.1, "as many neurons, the same for all tokens"


def test_the_scores_of_neurons_are_those_by_which_they_are_removed(tmp_path):
    windows = windows_of(text_of(tmp_path / "both.txt", FIRST, SECOND))
    model, _ = with_clusters()
    ids = torch.from_numpy(windows.ids_WS1)
    found, seen = divided(model, ids, SplitSizes(experts=8, always=1, top_k=8), 0), watch_neurons(model, ids)
    for layer, score_F in found.scores.items():
        torch.testing.assert_close(
            torch.from_numpy(score_F).float(), torch.from_numpy(seen.activations[layer] * seen.norms[layer]).float()
        )
    table = found.table.filter(layer=1)
    shared, experts = found.split.members(1)
    assert table.filter(table["expert"].is_null())["neuron"].to_list() == sorted(shared)
    assert table.filter(expert=3)["neuron"].to_list() == sorted(experts[3])


@torch.no_grad()
def test_what_an_expert_does_is_the_squared_length_of_its_output_in_the_metric_of_the_loss(monkeypatch):
    monkeypatch.setattr(splitting, "TOKENS_AT_ONCE", 3)
    dense, split = shaken(FAMILIES["llama"]), some(FAMILIES["llama"])
    make = torch.Generator().manual_seed(1)
    x_TD, sensed_DD = torch.randn(7, 16, generator=make), torch.randn(16, 16, generator=make)
    experts, whole = split.members(0)[1], dense.blocks[0].feed_forward
    part = split_of(dense, split).blocks[0].feed_forward
    found_TE = done(whole, whole.w_out_FD @ sensed_DD, x_TD, experts)
    for expert in range(len(experts)):
        y_TD = swiglu(x_TD, part.w_in_EDH[expert], part.w_out_EFD[expert])
        torch.testing.assert_close(found_TE[:, expert], (y_TD @ sensed_DD).square().sum(1))


def test_the_growth_of_the_loss_is_half_of_what_the_experts_that_are_left_out_do():
    logits_TE = torch.tensor([[3.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    done_TE = torch.tensor([[10.0, 1.0, 4.0], [6.0, 2.0, 8.0]])
    assert growth(logits_TE, done_TE).tolist() == [(15 + 16) / 4, (5 + 8) / 4, (1 + 6) / 4, 0]


def test_layers_in_which_experts_do_little_keep_fewer_of_them():
    dear, cheap = [9.0, 6.0, 3.0, 1.0, 0.0], [2.0, 0.5, 0.2, 0.1, 0.0]
    assert numbers_by_layer([dear, cheap], 4) == (4, 4)
    assert numbers_by_layer([dear, cheap], 3) == (4, 2)
    assert numbers_by_layer([cheap, [10 * growth for growth in dear]], 2) == (1, 3), "one expert stays"
    assert numbers_by_layer([dear, dear], 1) == (1, 1)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ((7, 2, None), r"split_experts: 7 experts and a shared part of 2 do not divide the 40 neurons of a layer"),
        ((1, 0, None), "split_experts: 1 is below 2"),
        ((4, -1, None), "always: -1 is below 0"),
        ((6, 2, 7), r"top_k: 7 lies outside 1..6, the experts of a layer"),
        ((6, 2, 0), r"top_k: 0 lies outside 1..6"),
    ],
)
def test_numbers_that_no_layer_can_have_are_refused(sizes, says):
    with pytest.raises(UserError, match=says) as refused:
        SplitSizes.of(*sizes).require_fits(FAMILIES["llama"])
    if "divide" in says:
        assert refused.value.hint == "with always 2 these numbers of experts fit: 2, 3, 6, 8, 18, 38"


def test_a_hint_names_what_fits_layers_of_different_widths():
    with pytest.raises(UserError, match="do not divide the 24 and 40 neurons") as refused:
        SplitSizes.of(3, 0, None).require_fits(DENSE["layers of different widths"])
    assert refused.value.hint == "with always 0 these numbers of experts fit: 2, 4, 8"
    with pytest.raises(UserError) as refused:
        SplitSizes.of(30, 40, None).require_fits(FAMILIES["llama"])
    assert refused.value.hint == "choose another always: no number of experts fits 40"


def test_a_quarter_is_shared_and_all_experts_are_on_unless_told_otherwise():
    sizes = SplitSizes.of(24, None, None)
    assert (sizes.always, sizes.top_k, sizes.share(24), sizes.share(8)) == (8, 24, 1.0, 0.5)
    assert sizes.settings == (24, 18, 11)
    assert (sizes.compared, SplitSizes.of(24, None, 14).compared) == (11, 14)
    assert SplitSizes.of(24, None, 2).settings == (24, 18, 11, 2)
    assert SplitSizes.of(2, 6, None).settings == (2, 1), "no token visits less than one expert"


def test_what_has_experts_or_modules_of_prediction_is_not_split():
    assert not_to_split(FAMILIES["llama"]) is None
    assert "experts already" in str(not_to_split(FAMILIES["mixtral"]))
    assert "multi-token prediction" in str(not_to_split(replace(FAMILIES["llama"], mtp_layers=1)))
