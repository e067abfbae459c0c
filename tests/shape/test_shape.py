"""Shapes that no model can have are refused in one line."""

import pytest

from sparsedial.errors import UserError
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import RopeScaling, Shape

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
