"""Memory: factors recovered from made-up peaks, the error of what was left out, parts that add up."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.machine.memory import Memory, fit_memory, measure_memory, step_bytes
from sparsedial.machine.profile import read_profile
from sparsedial.records.record import plain, write
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shapes import Shapes
from sparsedial.store import write_json
from tests.machine.test_profile import profile_of

LADDER = Ladder(vocab_size=4096, context=256)
SHAPES = [LADDER.shape(width, experts) for width in (64, 128, 256) for experts in (0, 8, 64)]
PROCESS, STATE, ACTIVATIONS = 300e6, 1.1, 1.4
PARTS = ("weights", "moments", "casts", "gradients", "activations")


def made_up(noise: float, batches=(2, 8, 32)) -> Memory:
    random = np.random.default_rng(0)

    def peak(shape, batch, context):
        parts = step_bytes(shape, batch, context)
        whole = PROCESS + STATE * parts.state + ACTIVATIONS * parts.activations
        return float(whole * np.exp(random.normal(0, noise)))

    return measure_memory(peak, SHAPES, batches, 256)


@pytest.mark.parametrize(("noise", "within"), [(0.0, 1e-6), (0.01, 0.05)])
def test_process_and_factors_come_back_from_made_up_peaks(noise, within):
    memory = made_up(noise)
    assert memory.process_bytes == pytest.approx(PROCESS, rel=within)
    assert memory.state_factor == pytest.approx(STATE, rel=within)
    assert memory.activation_factor == pytest.approx(ACTIVATIONS, rel=within)
    assert len(memory.rows) == len(SHAPES) * 3


def test_the_error_of_shapes_left_out_follows_the_noise():
    assert made_up(0.0).max_relative_error < 1e-6
    noisy = made_up(0.01)
    assert 0.003 < noisy.median_relative_error < 0.02
    assert noisy.median_relative_error < noisy.max_relative_error < 0.05


def test_a_row_far_off_shows_as_the_largest_error_and_no_factor_is_negative():
    first, *others = made_up(0.0).rows
    rows = [replace(first, peak_bytes=2 * first.peak_bytes), *others]
    memory = fit_memory(rows)
    assert memory.max_relative_error > 0.3
    assert min(memory.process_bytes, memory.state_factor, memory.activation_factor) >= 0


def test_bytes_are_the_process_and_the_weighted_parts():
    memory, shape = made_up(0.0), LADDER.shape(96, 16)
    parts = step_bytes(shape, 4, 256)
    expected = PROCESS + STATE * parts.state + ACTIVATIONS * parts.activations
    assert memory.bytes(shape, 4, 256) == pytest.approx(expected, rel=1e-6)


def test_memory_travels_in_a_profiles_file(tmp_path):
    profile = replace(profile_of(0.0), memory=made_up(0.01))
    write(tmp_path / "profile.json", profile)
    again = read_profile(tmp_path / "profile.json")
    assert again == profile
    assert again.memory_bytes(SHAPES[0], 8, 256) == profile.memory_bytes(SHAPES[0], 8, 256)


def test_a_file_of_an_older_layout_is_named_and_one_without_memory_is_counted(tmp_path):
    file = tmp_path / "old.json"
    values = plain(profile_of(0.0))

    def read_with(**changes):
        write_json(file, {name: value for name, value in {**values, **changes}.items() if value is not ...})
        return read_profile(file)

    bare = read_with(memory=...)
    assert bare.memory_bytes(SHAPES[4], 8, 256) == float(step_bytes(SHAPES[4], 8, 256).total)
    with pytest.raises(UserError, match=r"old.json: lacks the field 'memory.process_bytes'"):
        read_with(memory={"state_factor": 1.0})
    with pytest.raises(UserError, match=r"old.json: lacks the field 'dtype'"):
        read_with(dtype=...)
    with pytest.raises(UserError, match="coefficients"):
        read_with(coefficients={"step": 1.0})


@pytest.mark.parametrize("value_bytes", [2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_parts_add_up_and_weights_are_four_bytes_a_parameter(shape, value_bytes):
    parts = step_bytes(shape, 8, 256, value_bytes)
    assert float(parts.total) == pytest.approx(sum(float(getattr(parts, name)) for name in PARTS))
    assert plain(parts.parts) == {f"{name}_bytes": float(getattr(parts, name)) for name in PARTS}
    assert parts.weights == 4 * total_parameters(shape)
    assert parts.moments == 2 * parts.weights
    assert parts.casts == (0 if value_bytes == 4 else 2 * total_parameters(shape))


def test_bytes_grow_with_experts_batch_and_context():
    def total(experts=8, batch=8, context=256):
        return float(step_bytes(LADDER.shape(128, experts), batch, context).total)

    assert total(experts=0) < total(experts=8) < total(experts=64)
    assert total(batch=2) < total(batch=8) < total(batch=64)
    assert total(context=64) < total(context=256) < total(context=1024)


@pytest.mark.parametrize("value_bytes", [2, 4])
def test_a_column_of_shapes_has_the_bytes_of_each(value_bytes):
    column = step_bytes(Shapes.of(SHAPES), 8, 256, value_bytes)
    for place, shape in enumerate(SHAPES):
        alone = step_bytes(shape, 8, 256, value_bytes)
        for name in PARTS:
            values = np.broadcast_to(getattr(column, name), len(SHAPES))
            assert values[place] == pytest.approx(float(getattr(alone, name))), name
