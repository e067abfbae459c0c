"""The counts of a shape, as `count` answers them."""

from __future__ import annotations

import pytest

import sparsedial
from sparsedial.errors import UserError


@pytest.mark.parametrize(
    ("settings", "field"), [({"context": 0}, "context"), ({"context": 10**9}, "context"), ({"dtype": "int3"}, "dtype")]
)
def test_impossible_counts_are_refused(settings, field):
    with pytest.raises(UserError) as error:
        sparsedial.count(shape="qwen3-8b", **settings)
    assert error.value.field == field


def test_every_way_of_counting_stands_side_by_side():
    counts = sparsedial.count(shape="qwen3-8b")
    assert counts.active_parameters_no_embedding < counts.active_parameters_one_embedding < counts.active_parameters
    assert counts.weight_bytes == 2 * counts.total_parameters
    assert counts.training_flops_per_token == 3 * counts.forward_flops_per_token
