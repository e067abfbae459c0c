"""What every family keeps: fields and names both ways, and a refusal by name of what it cannot express."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from sparsedial.errors import UserError
from sparsedial.shape.config import family_of, fitting_family, read_config, tensor_rules, write_config
from sparsedial.shape.families.registry import FAMILIES
from sparsedial.shape.hugging_face.limits import Limit
from sparsedial.shape.hugging_face.values import Config
from sparsedial.shape.rules import expected_tensors, written_tensors
from sparsedial.shape.shape import ROUTED, Shape, with_layers
from sparsedial.shape.tensors import tensor_sizes
from tests.model.shapes import FAMILIES as SHAPES

LATENT = {"kv_lora_rank": 12, "nope_head_dim": 6, "rope_head_dim": 4, "v_head_dim": 5, "head_dim": 10}
LIMITS = [(name, limit) for name, family in FAMILIES.items() for limit in family.limits]


def unequal(shape: Shape) -> Shape:
    """With one expert or one neuron less in its last layer."""
    *others, last = [shape.layer(number) for number in range(shape.layers)]
    less = {"experts": last.experts - shape.expert_groups} if last.is_sparse else {"d_ff": last.d_ff - 1}
    return with_layers(shape, [*others, replace(last, **less)])


def with_other_experts(shape: Shape) -> Shape:
    """Dense where it was sparse, and sparse where it was dense."""
    if not shape.experts:
        return replace(shape, d_ff=0, experts=8, top_k=2, d_expert=8)
    defaults = {field.name: field.default for field in fields(Shape) if field.name in ROUTED}
    return replace(shape, **defaults, d_ff=shape.d_ff or 24)


def with_other_attention(shape: Shape) -> Shape:
    """Latent where it was grouped, and grouped where it was latent."""
    if shape.latent_attention:
        return replace(shape, kv_lora_rank=0, q_lora_rank=0, nope_head_dim=0, rope_head_dim=0, v_head_dim=0)
    return replace(shape, kv_heads=shape.heads, qk_norm="none", window=0, full_layers=0, attention_bias=False, **LATENT)


# By field of a Shape: the same shape with another value of it.
CHANGES: dict[str, Callable[[Shape], list[Shape]]] = {
    "logit_cap": lambda shape: [replace(shape, logit_cap=20.0)],
    "top_p": lambda shape: [replace(shape, top_p=0.7)],
    "own_layers": lambda shape: [unequal(shape)],
    "experts": lambda shape: [with_other_experts(shape)],
    "kv_lora_rank": lambda shape: [with_other_attention(shape)],
    "window": lambda shape: [replace(shape, window=5)],
    "full_layers": lambda shape: [replace(shape, window=5, full_layers=1)],
    "attention_bias": lambda shape: [replace(shape, attention_bias=not shape.attention_bias)],
    "qk_norm": lambda shape: [replace(shape, qk_norm=kind) for kind in ("none", "head", "full")],
    "d_model": lambda shape: [replace(shape, d_model=18)],
    "head_dim": lambda shape: [replace(shape, head_dim=2 * shape.head_dim)],
    "gate": lambda shape: [replace(shape, gate=kind) for kind in ("softmax", "sigmoid") if shape.experts],
    "normalize_gates": lambda shape: [replace(shape, normalize_gates=not shape.normalize_gates)] * bool(shape.experts),
    "routing_bias": lambda shape: [replace(shape, routing_bias=not shape.routing_bias)] * bool(shape.experts),
    "routed_scaling": lambda shape: [replace(shape, routed_scaling=3.0)] * bool(shape.experts),
    "expert_groups": lambda shape: [replace(shape, expert_groups=2, kept_groups=1)] * bool(shape.experts),
    "rotated": lambda shape: [replace(shape, rotated=2)],
    "shared_gate": lambda shape: [replace(shape, shared_gate=not shape.shared_gate)] * bool(shape.experts),
    "shared_experts": lambda shape: [replace(shape, shared_experts=count) for count in (0, 1) if shape.experts],
    "dense_layers": lambda shape: [
        replace(shape, layers=3, dense_layers=count, dense_places=(), d_ff=24) for count in (1, 3) if shape.experts
    ],
    "dense_places": lambda shape: [replace(shape, layers=4, dense_places=(3,), d_ff=24)] * bool(shape.experts),
    "tied_embeddings": lambda shape: [replace(shape, tied_embeddings=not shape.tied_embeddings)],
    "norm_eps": lambda shape: [replace(shape, norm_eps=3e-5)],
    "rope_theta": lambda shape: [replace(shape, rope_theta=77.0)],
    "mtp_layers": lambda shape: [replace(shape, mtp_layers=2)],
    "q_lora_rank": lambda shape: [replace(shape, q_lora_rank=0)],
}


def changed(shape: Shape, field: str) -> list[Shape]:
    """Shapes with another value of a field, as far as there can be such."""
    try:
        return [other for other in CHANGES[field](shape) if other != shape]
    except UserError:
        return []


def shapes_of(family: str) -> list[Shape]:
    """The test shapes that are written as a family."""
    return [shape for shape in SHAPES.values() if fitting_family(shape) == family]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_stands_under_its_model_type_and_has_shapes_to_test(name):
    assert FAMILIES[name].model_type == name
    assert shapes_of(name)


@pytest.mark.parametrize("case", SHAPES)
def test_a_written_configuration_reads_back_as_the_same_shape(case):
    name = case.partition(",")[0]
    assert family_of(SHAPES[case]) == name
    config = write_config(SHAPES[case])
    assert read_config(config) == SHAPES[case]
    for alias in FAMILIES[name].aliases:
        assert read_config({**config, "model_type": alias}) == SHAPES[case]


@pytest.mark.parametrize("case", SHAPES)
def test_a_shape_is_written_whole_or_refused(case):
    for shape in (other for field in CHANGES for other in changed(SHAPES[case], field)):
        if fitting_family(shape) is None:
            with pytest.raises(UserError, match="no published family fits"):
                write_config(shape)
        else:
            assert read_config(write_config(shape)) == shape


@pytest.mark.parametrize(("name", "limit"), LIMITS, ids=[f"{name}-{limit.field}" for name, limit in LIMITS])
def test_what_a_family_cannot_express_is_refused_by_its_field(name: str, limit: Limit):
    refused = [
        shape
        for fitting in shapes_of(name)
        for shape in changed(fitting, limit.field)
        if limit in FAMILIES[name].lacks(shape)
    ]
    assert refused
    for shape in refused:
        assert fitting_family(shape) != name
        assert limit.words(shape).startswith(limit.field)
        assert limit.reason in limit.words(shape)


@pytest.mark.parametrize("modules", [0, 2])
@pytest.mark.parametrize("case", SHAPES)
def test_every_tensor_has_one_published_name_and_comes_back_from_it(case, modules):
    shape = replace(SHAPES[case], mtp_layers=modules)
    sizes, rules = tensor_sizes(shape), tensor_rules(Config(write_config(shape)), shape)
    written, expected = written_tensors(rules, shape), expected_tensors(rules, shape)
    assert written.keys() == sizes.keys()
    assert len({tensor.theirs for tensor in written.values()}) == len(sizes)
    for name, tensor in written.items():
        (piece,) = expected[tensor.theirs].pieces
        assert piece.name == name
        assert expected[tensor.theirs].size == sizes[name]
        assert piece.rows == (0, sizes[name][0])


@pytest.mark.parametrize("case", SHAPES)
def test_a_fused_tensor_is_cut_into_whole_tensors_of_ours(case):
    shape = SHAPES[case]
    sizes, rules = tensor_sizes(shape), tensor_rules(Config(write_config(shape)), shape)
    for tensor in expected_tensors(rules, shape).values():
        cut = sum(piece.rows[1] - piece.rows[0] for piece in tensor.pieces)
        stacked = tensor.pieces[0].expert is not None
        assert cut == tensor.size[0] * (tensor.size[1] if stacked else 1)
        for piece in tensor.pieces:
            assert (piece.rows[1] - piece.rows[0], *tensor.size[1 + stacked :]) == sizes[piece.name]


@pytest.mark.parametrize("name", FAMILIES)
def test_no_name_of_a_family_means_two_things(name):
    theirs = [rule.theirs for rule in FAMILIES[name].tensors]
    assert len(set(theirs)) == len(theirs)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (
            replace(SHAPES["qwen3"], attention_bias=True),
            ["qwen3", "attention_bias=True", "output projection", "qwen2", "qk_norm=head"],
        ),
        (replace(SHAPES["olmoe"], head_dim=8), ["olmoe", "head_dim=8", "qwen3_moe", "qk_norm=full"]),
        (replace(SHAPES["glm4_moe"], logit_cap=20.0, top_p=0.7), ["glm4_moe", "logit_cap=20", "top_p=0.7"]),
        (unequal(SHAPES["qwen3_moe"]), ["qwen3_moe", "own_layers"]),
    ],
)
def test_a_shape_of_no_family_names_the_nearest_and_what_stands_in_its_way(shape, says):
    with pytest.raises(UserError) as error:
        family_of(shape)
    for part in says:
        assert part in error.value.problem


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.experts and not shape.dense_layers])
def test_a_width_that_no_layer_uses_changes_no_tensor(name):
    """`d_ff` of a shape whose layers are all sparse, given beside experts of another width."""
    shape = replace(SHAPES[name], d_ff=SHAPES[name].d_expert + 8)
    assert tensor_sizes(read_config(write_config(shape))) == tensor_sizes(shape)
