"""Shapes that no model can have are refused in one line."""

from dataclasses import replace

import pytest

from sparsedial.errors import UserError
from sparsedial.shape.counts import active_parameters, flops_by_part, total_parameters
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Layer, RopeScaling, Shape, with_layers

GOOD = {
    "layers": 2,
    "d_model": 16,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 4,
    "d_ff": 32,
    "vocab_size": 64,
    "context": 16,
}
NAN = float("nan")
LATENT = {**GOOD, "kv_heads": 4, "kv_lora_rank": 8, "nope_head_dim": 2, "rope_head_dim": 2, "v_head_dim": 4}
SPARSE = {**GOOD, "d_ff": 0, "experts": 8, "top_k": 2, "d_expert": 8}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({**GOOD, "layers": 0}, "layers=0"),
        ({**GOOD, "kv_heads": 3}, "kv_heads=3 does not divide heads=4"),
        ({**GOOD, "head_dim": 5}, "head_dim=5 is odd"),
        ({**GOOD, "top_k": 2}, "dense model"),
        ({**GOOD, "d_ff": 0}, "d_ff=0"),
        ({**GOOD, "rotated": 1}, "rotated=1"),
        ({**GOOD, "rotated": 4}, "rotated=4 is not an even number of channels below head_dim=4"),
        ({**LATENT, "rotated": 2}, "rotated=2"),
        ({**SPARSE, "gate": "ones"}, "weights that are ones .gate. cannot sum to one"),
        ({**SPARSE, "shared_gate": True}, "shared_gate=True weighs shared experts"),
        ({**SPARSE, "top_k": 9}, "top_k=9 lies outside 1..experts=8"),
        ({**SPARSE, "top_k": 0}, "top_k=0"),
        ({**SPARSE, "d_expert": 0}, "d_expert=0"),
        ({**SPARSE, "dense_layers": 3}, "dense_layers=3"),
        ({**SPARSE, "expert_groups": 3}, "expert_groups=3"),
        ({**SPARSE, "expert_groups": 0}, "expert_groups=0"),
        ({**GOOD, "norm_eps": -1.0}, "norm_eps=-1"),
        ({**GOOD, "norm_eps": NAN}, "norm_eps=nan"),
        ({**GOOD, "rope_theta": -1.0}, "rope_theta=-1"),
        ({**GOOD, "rope_theta": NAN}, "rope_theta=nan"),
        ({**GOOD, "logit_cap": NAN}, "logit_cap=nan"),
        ({**GOOD, "mtp_layers": -1}, "mtp_layers=-1"),
        ({**GOOD, "kv_lora_rank": -1}, "kv_lora_rank=-1"),
        ({**SPARSE, "routed_scaling": NAN}, "routed_scaling=nan"),
        ({**LATENT, "q_lora_rank": -1}, "q_lora_rank=-1"),
        ({**LATENT, "attention_bias": True}, "bias"),
        ({**SPARSE, "expert_groups": 8, "kept_groups": 1}, "top_k=2 is more than the kept groups hold"),
    ],
)
def test_impossible_sizes_are_named(values, says):
    with pytest.raises(UserError, match=says):
        Shape(**values)


@pytest.mark.parametrize("value", [NAN, float("inf"), -1.0])
@pytest.mark.parametrize(
    "name",
    ["factor", "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "low_frequency_factor"],
)
def test_a_stretch_by_no_number_is_named(name, value):
    with pytest.raises(UserError, match=f"{name}={value:g}"):
        RopeScaling(**{"kind": "yarn", "factor": 2.0, "original_context": 8, name: value})


def test_sparsity_is_the_share_of_experts_left_out():
    assert Shape(**SPARSE).sparsity == 0.75
    assert Shape(**GOOD).sparsity == 0.0


def test_every_rung_splits_into_whole_experts():
    ladder = Ladder(vocab_size=256, context=64)
    for width in (12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024):
        dense, sparse = ladder.shape(width, 0), ladder.shape(width, 16)
        assert (sparse.top_k + sparse.shared_experts) * sparse.d_expert == dense.d_ff
        assert sparse.heads * sparse.head_dim == width


def test_a_width_that_is_no_rung_is_refused():
    with pytest.raises(UserError, match="d_model=10"):
        Ladder(vocab_size=256, context=64).shape(10, 0)


ROUTED = Layer(experts=8, top_k=2, d_expert=8)
WIDER = Layer(experts=4, top_k=1, d_expert=16)


def test_layers_that_are_alike_are_written_as_before():
    shape = replace(Shape(**SPARSE), layers=4, d_ff=24, dense_layers=1, dense_places=(2,))
    layers = [shape.layer(number) for number in range(4)]
    assert [layer.is_sparse for layer in layers] == [False, True, False, True]
    assert with_layers(shape, layers) == shape
    assert "own_layers" not in shape.record()


def test_layers_that_differ_come_back_from_their_record():
    shape = with_layers(Shape(**SPARSE), [Layer(d_ff=20), ROUTED, WIDER])
    assert (shape.layers, shape.experts, shape.top_k, shape.d_expert, shape.d_ff) == (3, 8, 2, 16, 20)
    assert [shape.layer(number) for number in range(3)] == [Layer(d_ff=20), ROUTED, WIDER]
    assert Shape(**shape.record()) == shape


def test_counts_sum_over_layers_that_differ():
    base = replace(Shape(**SPARSE), shared_experts=1)
    mixed = with_layers(base, [ROUTED, WIDER, WIDER])
    alone = [with_layers(base, [layer]) for layer in (ROUTED, WIDER, WIDER)]
    beside = total_parameters(base) - 2 * (total_parameters(with_layers(base, [ROUTED] * 3)) - total_parameters(base))
    for count in (total_parameters, active_parameters):
        assert count(mixed) - beside == sum(count(shape) - beside for shape in alone)
    parts = flops_by_part(mixed, 16)
    for name in ("router", "routed_experts", "shared_experts", "attention_scores"):
        assert parts[name] == sum(flops_by_part(shape, 16)[name] for shape in alone)
    assert mixed.sparsity == 1 - (2 + 1 + 1) / (8 + 4 + 4)
    assert mixed.activation_ratio == (2 + 1 + 1 + 3) / (8 + 4 + 4 + 3)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (Layer(experts=4, top_k=5, d_expert=8), "layer 1 is not a valid sparse layer"),
        (Layer(experts=4, top_k=1), "layer 1 is not a valid sparse layer"),
        (Layer(), "d_ff=0 is below 1"),
        (Layer(experts=3, top_k=1, d_expert=8), "do not fit experts=3"),
    ],
)
def test_an_impossible_layer_is_named(layer, says):
    with pytest.raises(UserError, match=says):
        with_layers(Shape(**{**SPARSE, "expert_groups": 2, "kept_groups": 2}), [ROUTED, layer])


def test_sizes_that_contradict_their_layers_are_refused():
    with pytest.raises(UserError, match="own_layers has 2 layers"):
        replace(with_layers(Shape(**SPARSE), [ROUTED, WIDER]), experts=16)
