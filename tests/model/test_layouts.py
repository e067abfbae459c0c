"""Layouts of rows: known orders, and each way back gives what was there."""

from __future__ import annotations

import pytest
import torch

from sparsedial.kernels.fused import rotate
from sparsedial.model.layouts import LAYOUTS, halves_of_leading, halves_of_pairs, leading_of_halves, pairs_of_halves
from sparsedial.model.rotary import rotary_table
from tests.model.shapes import FAMILIES


def rows(numbers: list[int]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32).unsqueeze(1)


def test_the_turned_rows_of_each_head_change_their_order():
    """Two heads of six rows, of which four are turned."""
    pairs = rows([0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15])
    halves = rows([0, 1, 2, 4, 3, 5, 10, 11, 12, 14, 13, 15])
    assert torch.equal(halves_of_pairs(pairs, 6, 4), halves)
    assert torch.equal(pairs_of_halves(halves, 6, 4), pairs)


def test_the_first_rows_of_each_head_are_spread_over_both_halves():
    """Two heads of six rows, of which the first four are turned: 0 with 2, 1 with 3."""
    leading = rows([0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15])
    halves = rows([0, 1, 4, 2, 3, 5, 10, 11, 14, 12, 13, 15])
    assert torch.equal(halves_of_leading(leading, 6, 4), halves)
    assert torch.equal(leading_of_halves(halves, 6, 4), leading)


def test_rows_in_pairs_are_turned_two_by_two():
    """Turned by hand as DeepSeek's files mean it, neighbours together, then brought into halves."""
    shape = FAMILIES["llama"]
    pairs_S1C = torch.randn(3, 1, shape.head_dim, generator=torch.Generator().manual_seed(0))
    cosine_SC, sine_SC = rotary_table(shape, 3)
    cosine_SP, sine_SP = cosine_SC.chunk(2, 1)[0].unsqueeze(1), sine_SC.chunk(2, 1)[1].unsqueeze(1)
    x_S1P, y_S1P = pairs_S1C[..., 0::2], pairs_S1C[..., 1::2]
    turned = torch.stack([x_S1P * cosine_SP - y_S1P * sine_SP, x_S1P * sine_SP + y_S1P * cosine_SP], 3).flatten(2)
    into_halves = [halves_of_pairs(x_S1C[:, 0].T, shape.head_dim, shape.head_dim).T for x_S1C in (pairs_S1C, turned)]
    torch.testing.assert_close(rotate(into_halves[0][None, None], cosine_SC, sine_SC)[0, 0], into_halves[1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("head", "turned"), [(6, 4), (6, 6), (12, 2)])
def test_what_is_written_in_a_layout_is_read_back(layout, head, turned):
    ours = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    changes = LAYOUTS[layout]
    assert torch.equal(changes.read(changes.written(ours, head, turned), head, turned), ours)
