"""Many shapes as columns are counted as each of them is."""

from __future__ import annotations

import numpy as np
import pytest

from sparsedial.law.forms import FORMS
from sparsedial.machine.memory import step_bytes
from sparsedial.machine.profile import features
from sparsedial.planning.candidates import candidates
from sparsedial.shape.counts import (
    active_parameters,
    cached_values_per_token,
    flops_by_part,
    total_parameters,
    training_flops_per_token,
)
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Layer, with_layers
from sparsedial.shape.shapes import Shapes

SHAPES = candidates(vocab_size=1000, context=128)
PLACES = np.linspace(0, len(SHAPES) - 1, 60).astype(int)
COUNTS = {
    "total parameters": total_parameters,
    "active parameters": active_parameters,
    "training FLOPs": lambda shape: training_flops_per_token(shape, 128),
    "cached values": cached_values_per_token,
    "training bytes": lambda shape: step_bytes(shape, 4, 128).total,
    "sparsity": lambda shape: shape.sparsity,
    "activation ratio": lambda shape: shape.activation_ratio,
}


@pytest.mark.parametrize("what", COUNTS)
def test_columns_are_counted_as_each_shape_is(what):
    columns = np.broadcast_to(COUNTS[what](SHAPES), (len(SHAPES),))
    for place in PLACES:
        assert columns[place] == pytest.approx(COUNTS[what](SHAPES[place]), rel=1e-12)


@pytest.mark.parametrize("table", [lambda s: flops_by_part(s, 128), lambda s: features(s, 4, 128)])
def test_tables_of_columns_equal_those_of_each_shape(table):
    columns = table(SHAPES)
    for place in PLACES[:20]:
        for name, value in table(SHAPES[place]).items():
            assert np.broadcast_to(columns[name], (len(SHAPES),))[place] == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize("form", FORMS)
def test_every_law_reads_columns_as_it_reads_each_shape(form):
    columns = FORMS[form].count(SHAPES)
    for place in PLACES[:20]:
        for name, value in FORMS[form].count(SHAPES[place]).items():
            assert columns[name][place] == pytest.approx(float(value), rel=1e-12), name


def test_every_candidate_is_a_shape_that_can_be_built():
    for place in range(len(SHAPES)):
        shape = SHAPES[place]
        assert shape.heads * shape.head_dim == shape.d_model
        assert not shape.experts or shape.d_expert % 64 == 0


def test_there_are_ten_thousand_candidates():
    assert len(SHAPES) >= 10_000


def test_given_shapes_come_back_from_their_columns():
    ladder = Ladder(vocab_size=256, context=64)
    shapes = [ladder.shape(width, experts) for width in (16, 32, 64) for experts in (0, 8, 32)]
    columns = Shapes.of(shapes)
    assert [columns[place] for place in range(len(columns))] == shapes
    assert len(columns.pick(columns.experts == 8)) == 3


def test_shapes_with_layers_that_differ_cannot_be_columns():
    shape = Ladder(vocab_size=256, context=64).shape(16, 8)
    with pytest.raises(ValueError, match="cannot be columns"):
        Shapes.of([with_layers(shape, [Layer(d_ff=32), Layer(d_ff=16)])])


def test_shapes_are_counted_once_for_each_question_about_them(monkeypatch):
    from sparsedial.shape import counts

    ladder = Ladder(vocab_size=256, context=64)
    columns = Shapes.of([ladder.shape(width, 8) for width in (16, 32)])
    first = training_flops_per_token(columns, 64)
    monkeypatch.setattr(counts, "flops_by_part", lambda *given: pytest.fail("counted again"))
    assert training_flops_per_token(columns, 64) is first
    monkeypatch.undo()
    assert (training_flops_per_token(columns, 128) > first).all()
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0
