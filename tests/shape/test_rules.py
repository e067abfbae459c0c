"""Rules by themselves: a name, a cut along the rows, a stack of experts, a layout that a configuration switches off."""

from __future__ import annotations

import pytest

from sparsedial.shape.families.family import switched
from sparsedial.shape.hugging_face.values import Config
from sparsedial.shape.rules import Expected, Piece, Rule, Written, expected_tensors, misfits, written_tensors
from sparsedial.shape.tensors import Name
from tests.model.shapes import FAMILIES

LLAMA, MIXTRAL = FAMILIES["llama"], FAMILIES["mixtral"]  # queries [16, 16], keys and values [8, 16]; 8 experts of 8
QUERY = Rule(theirs="h.{layer}.q", ours=("attention.query",))


def test_a_rule_of_one_part_gives_another_name():
    assert expected_tensors([QUERY], LLAMA) == {
        f"h.{layer}.q": Expected((16, 16), (Piece(Name("attention.query", layer), (0, 16)),), "plain")
        for layer in range(2)
    }


def test_parts_follow_each_other_along_the_rows():
    rule = Rule(theirs="h.{layer}.qkv", ours=("attention.query", "attention.key", "attention.value"))
    tensor = expected_tensors([rule], LLAMA)["h.1.qkv"]
    assert tensor.size == (32, 16)
    assert [(piece.name.part, piece.rows) for piece in tensor.pieces] == [
        ("attention.query", (0, 16)),
        ("attention.key", (16, 24)),
        ("attention.value", (24, 32)),
    ]


def test_a_stack_holds_the_parts_of_every_expert():
    rule = Rule(theirs="h.{layer}.in", ours=("experts.gate", "experts.up"), stacked=True)
    tensor = expected_tensors([rule], MIXTRAL)["h.0.in"]
    assert tensor.size == (8, 16, 16)
    assert tensor.pieces[5] == Piece(Name("experts.up", 0, 2), (8, 16), 2)
    assert len(tensor.pieces) == 16


def test_a_rule_for_parts_that_a_shape_lacks_expects_nothing():
    assert expected_tensors([Rule(theirs="r.{layer}", ours=("router",))], LLAMA) == {}


def test_the_first_rule_that_holds_a_part_alone_writes_it():
    fused = Rule(theirs="h.{layer}.qk", ours=("attention.query", "attention.key"))
    older = Rule(theirs="old.{layer}.q", ours=("attention.query",))
    written = written_tensors([fused, QUERY, older], LLAMA)
    assert written == {Name("attention.query", layer): Written(f"h.{layer}.q", "plain") for layer in range(2)}


@pytest.mark.parametrize(
    ("values", "layout"),
    [({}, "pairs"), ({"interleave": True}, "pairs"), ({"interleave": False}, "plain"), ({"interleave": None}, "plain")],
)
def test_a_configuration_switches_a_layout_off(values, layout):
    rule = Rule(theirs="q", ours=("attention.query",), layout="pairs", switch="interleave")
    always = Rule(theirs="q", ours=("attention.query",), layout="pairs")
    assert [rule.layout for rule in switched((rule, always), Config(values))] == [layout, "pairs"]


def test_what_does_not_fit_is_listed_from_names_and_sizes():
    rules = [QUERY, Rule(theirs="old.{layer}.q", ours=("attention.query",)), Rule(theirs="n", ours=("norm",))]
    found = {"h.0.q": (16, 16), "old.0.q": (16, 16), "n": (3,), "x": (1,), "h.0.q_scale": (1,)}
    faults = misfits(expected_tensors(rules, LLAMA), written_tensors(rules, LLAMA), found, {"h.0.q_scale"})
    assert faults == [
        "missing h.1.q",
        "old.0.q holds again what h.0.q holds",
        "n is [3] instead of [16]",
        "unexpected x",
    ]
