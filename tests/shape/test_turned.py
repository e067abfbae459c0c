"""Settings of the dial: how they are written, what they do to a Shape, and what no checkpoint can have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparsedial.errors import UserError
from sparsedial.records.setting import Setting
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.shape.shape import Layer
from sparsedial.shape.turned import DEFAULT, Turned, parse_turned, series, setting_texts
from tests.model.shapes import DENSE, FAMILIES, UNEQUAL

EVEN = FAMILIES["qwen3_moe"]  # two layers of 8 experts, of which a token visits 2
MIXED = FAMILIES["qwen3_moe, some layers dense"]  # layers 1 and 3 are sparse
GROUPS = FAMILIES["deepseek_v3, groups and YaRN"]  # a dense layer, then two of 8 experts, of which 4 can be chosen
EVEN_WITH_MODULE = replace(EVEN, layers=3, dense_layers=1, d_ff=24, mtp_layers=1)
WINDOWS = FAMILIES["qwen2_moe, windows from the second layer on"]


@pytest.mark.parametrize(
    ("text", "turned"),
    [
        ("k=2", Turned(top_k=(2,))),
        ("k=4/2/2", Turned(top_k=(4, 2, 2))),
        ("p=0.5", Turned(top_p=0.5)),
        ("p=.5", Turned(top_p=0.5)),
        ("skip=3+7", Turned(skip=(3, 7))),
        ("k=2,skip=3", Turned(top_k=(2,), skip=(3,))),
        ("neurons=.5", Turned(neurons=0.5)),
        ("neurons=0.5,skip=3", Turned(neurons=0.5, skip=(3,))),
        ("neurons=1", Turned()),
        (" skip=3 , p=1, k=12 ", Turned(top_k=(12,), top_p=1.0, skip=(3,))),
        (DEFAULT, Turned()),
    ],
)
def test_a_setting_as_it_is_written(text, turned):
    assert parse_turned(text) == turned


@pytest.mark.parametrize(
    "text",
    [
        "",
        "k",
        "k=",
        "2",
        "k=two",
        "k=-1",
        "k=1.5",
        "K=2",
        "k=2/",
        "p=",
        "skip=1,2",
        "top_k=2",
        "k=2;k=1",
        "neurons=half",
    ],
)
def test_nonsense_is_refused_with_the_way_to_write_it(text):
    with pytest.raises(UserError, match="cannot read") as error:
        parse_turned(text)
    assert "k=2, k=4/2/2" in str(error.value.hint)


def test_one_thing_twice_is_refused():
    with pytest.raises(UserError, match="gives one thing twice"):
        parse_turned("k=2,k=3")


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("k=1,k=2", ["k=1", "k=2"]),
        ("k=1;k=2", ["k=1", "k=2"]),
        ("k=2,skip=0,k=1", ["k=2,skip=0", "k=1"]),
        ("k=2;skip=0;k=1,p=0.5", ["k=2", "k=2,skip=0", "k=1,p=0.5"]),
        ("default,k=1", ["k=2", "k=1"]),
        ("k=1,default", ["k=1", "k=2"]),
        (["k=1", "k=2,skip=1"], ["k=1", "k=2,skip=1"]),
        (("skip=0",), ["k=2,skip=0"]),
    ],
)
def test_several_settings_in_one_text_or_a_list(given, names):
    assert [parse_turned(text).name(EVEN) for text in setting_texts(given)] == names


@pytest.mark.parametrize(
    ("shape", "text", "name"),
    [
        (EVEN, DEFAULT, "k=2"),
        (EVEN, "k=2/2", "k=2"),
        (EVEN, "k=4/1", "k=4/1"),
        (EVEN, "k=4/1,skip=0", "k=1,skip=0"),
        (EVEN, "p=1", "k=2"),
        (EVEN, "p=0.50", "k=2,p=0.5"),
        (replace(EVEN, top_p=0.4), DEFAULT, "k=2,p=0.4"),
        (replace(EVEN, top_p=0.4), "p=1", "k=2,p=1"),
        (MIXED, "k=3/1,skip=2+0", "k=3/1,skip=0+2"),
        (UNEQUAL, DEFAULT, "k=2/3/1"),
        (DENSE, DEFAULT, "default"),
        (DENSE, "skip=1", "skip=1"),
        (DENSE, "neurons=1", "default"),
        (DENSE, "skip=1,neurons=0.50", "neurons=0.5,skip=1"),
        (MIXED, "neurons=0.5,k=1", "k=1,neurons=0.5"),
        (EVEN, "p=0.00001", "k=2,p=0.00001"),
        (EVEN, "p=0.1234567", "k=2,p=0.1234567"),
        (DENSE, "neurons=0.3333333", "neurons=0.3333333"),
    ],
)
def test_equal_settings_have_one_name_that_reads_back(shape, text, name):
    turned = parse_turned(text)
    assert turned.name(shape) == name
    again = parse_turned(name)
    assert again.shape(shape) == turned.shape(shape)
    assert again.name(shape) == name


def test_what_is_counted_is_the_smaller_model():
    expert = 3 * EVEN.d_model * EVEN.d_expert
    whole, lower, skipped = (Setting.of(parse_turned(text), EVEN) for text in (DEFAULT, "k=1", "skip=0"))
    assert whole.active_parameters == active_parameters(EVEN)
    assert whole.active_parameters - lower.active_parameters == 2 * expert
    assert lower.sparsity.experts == 7 / 8
    assert (whole.top_k_experts, lower.top_k_experts) == (2, 1)
    assert skipped.skip_layers == (0,)
    assert skipped.active_parameters == active_parameters(replace(EVEN, layers=1))
    assert skipped.sparsity.parameters == 1 - skipped.active_parameters / total_parameters(replace(EVEN, layers=1))


def test_a_share_of_the_neurons_spares_ups_and_downs_of_dense_layers_and_no_gate():
    for shape, dense, skip in (
        (DENSE, DENSE.layers, ""),
        (MIXED, 2, ""),
        (MIXED, 1, ",skip=2"),
        (EVEN_WITH_MODULE, 1, ""),
    ):
        half, all_of_them = (Setting.of(parse_turned(f"neurons={n}{skip}"), shape) for n in (0.5, 1))
        assert all_of_them.active_parameters - half.active_parameters == dense * shape.d_model * shape.d_ff
        assert (half.neurons_share, all_of_them.neurons_share) == (0.5, None)
        total = total_parameters(parse_turned(f"neurons=0.5{skip}").shape(shape))
        assert half.sparsity.parameters == 1 - half.active_parameters / total
        assert half.sparsity.experts == all_of_them.sparsity.experts
    assert parse_turned("neurons=0.5").shape(DENSE) == DENSE


def test_a_number_for_each_layer_is_recorded_as_such():
    assert Setting.of(parse_turned("k=3/1"), MIXED).top_k_experts == (3, 1)
    assert Setting.of(parse_turned("k=3/1,skip=1"), MIXED).top_k_experts == 1
    assert Setting.of(parse_turned("skip=0"), DENSE).top_k_experts is None
    assert Setting.of(parse_turned("p=0.5"), EVEN).top_p_experts == 0.5


def test_layers_keep_their_kind_and_their_window_where_others_are_skipped():
    shape = parse_turned("k=1,skip=2").shape(MIXED)
    assert [shape.layer(number).is_sparse for number in range(3)] == [False, True, True]
    assert parse_turned("skip=0").shape(WINDOWS).window_of(0) == WINDOWS.window
    assert parse_turned("skip=1").shape(WINDOWS).window_of(0) == 0


@pytest.mark.parametrize(
    ("shape", "text", "says"),
    [
        (EVEN, "k=0", r"k=0 lies outside 1\.\.8: layer 0 has 8 experts"),
        (EVEN, "k=9", r"k=9 lies outside 1\.\.8"),
        (EVEN, "k=1/9", "layer 1 has 8 experts"),
        (EVEN, "k=1/1/1", "k=1/1/1 has 3 numbers, and the checkpoint 2 sparse layers"),
        (MIXED, "k=1/1/1/1", "has 4 numbers, and the checkpoint 2 sparse layers"),
        (GROUPS, "k=5", r"k=5 lies outside 1\.\.4: layer 1 has 4 experts in the 2 groups of a token"),
        (UNEQUAL, "k=4", "k=4 lies outside 1..3: layer 3 has 3 experts"),
        (EVEN, "skip=2", "no layer 2 to skip: the checkpoint has layers 0 to 1"),
        (EVEN, "skip=0+1", r"skip=0\+1 leaves no sparse layer"),
        (DENSE, "skip=0+1", r"skip=0\+1 leaves no layer"),
        (MIXED, "skip=1+3", "leaves no sparse layer"),
        (EVEN, "p=0", "p=0 is not above 0 and at most 1"),
        (EVEN, "p=1.5", "p=1.5 is not above 0 and at most 1"),
        (DENSE, "neurons=0", "neurons=0 lies outside 0.02..1"),
        (DENSE, "neurons=2", "neurons=2 lies outside 0.02..1"),
        (EVEN, "neurons=0.5", "neurons=0.5, but every layer has experts: there is no dense one"),
        (MIXED, "neurons=0.5,skip=0+2", "but every layer has experts"),
        (DENSE, "k=2", "k=2, but the checkpoint is dense"),
        (DENSE, "p=0.5", "p=0.5, but the checkpoint is dense"),
        (replace(UNEQUAL, mtp_layers=1), "skip=1", "of the size of the checkpoint's multi-token prediction"),
    ],
)
def test_what_a_checkpoint_cannot_have_is_one_line(shape, text, says):
    with pytest.raises(UserError, match=says) as error:
        Setting.of(parse_turned(text), shape)
    assert "\n" not in error.value.problem


def test_more_experts_than_it_was_trained_with_are_allowed_up_to_all():
    assert parse_turned("k=8").shape(EVEN) == replace(EVEN, top_k=8)


@pytest.mark.parametrize(
    ("shape", "also", "names"),
    [
        (replace(EVEN, top_k=6), (), ["k=6", "k=3", "k=1"]),
        (replace(EVEN, top_k=4), (8, 2, 3, 99), ["k=4", "k=8", "k=3", "k=2", "k=1"]),
        (UNEQUAL, (), ["k=2/3/1", "k=1"]),
        (DENSE, (), ["default"]),
        (replace(EVEN, layers=1, top_k=1), (), ["k=1"]),
    ],
)
def test_the_settings_that_are_looked_at_halve_the_experts_from_the_default_down(shape, also, names):
    assert [turned.name(shape) for turned in series(shape, also)] == names


def test_a_sparse_model_that_was_cut_to_its_dense_layers_stays_as_it_is():
    shape = replace(EVEN, dense_layers=2, d_ff=24)
    assert Turned().shape(shape) is shape
    assert shape.layer(0) == Layer(d_ff=24)
