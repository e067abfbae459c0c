"""Single matrices cut by magnitude, Wanda and SparseGPT: by hand, and against dense solutions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsedial.pruning import cutting
from sparsedial.pruning.cutting import DAMPING, Density, Products, Squares, magnitude, sparsegpt, wanda

HALF, TWO_OF_FOUR = Density(0.5), Density(0.5, (2, 4))


def seen(kind, x_TN: Tensor):
    found = kind(x_TN.shape[1])
    for part in x_TN.split(3):  # in batches
        found.add(part)
    return found


def correlated(tokens: int, inputs: int, seed: int = 0) -> Tensor:
    """Inputs of which each depends on the others."""
    make = torch.Generator().manual_seed(seed)
    mixed = torch.randn(inputs, inputs, generator=make) + 0.5
    return torch.randn(tokens, inputs, generator=make) @ mixed


def drawn(outputs: int, inputs: int) -> Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(9))


def test_wanda_by_hand():
    x_TN = torch.tensor([[3.0, 0, 0.1, 1], [4.0, 1, 0, -1]])  # norms 5, 1, 0.1, 1.414
    w_ON = torch.tensor([[1.0, -2, 40, 3], [0.1, 1, -20, -1], [-1, 4.9, 51, 3.5]])
    # products: 5, 2, 4, 4.2 | 0.5, 1, 2, 1.41 | 5, 4.9, 5.1, 4.95
    wanted = torch.tensor([[1.0, 0, 0, 3], [0, 0, -20, -1], [-1, 0, 51, 0]])
    assert torch.equal(wanda(w_ON, seen(Squares, x_TN), HALF), wanted)
    assert torch.equal(wanda(w_ON, seen(Squares, x_TN), Density(0.25)).count_nonzero(1), torch.ones(3))


def test_magnitude_compares_a_whole_matrix_and_wanda_each_output():
    w_ON = torch.tensor([[1.0, 2, 3, 4], [0.1, -0.2, 0.3, -0.4]])
    assert torch.equal(magnitude(w_ON, HALF), torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0]]))
    alike = seen(Squares, torch.ones(5, 4))
    assert torch.equal(wanda(w_ON, alike, HALF), torch.tensor([[0, 0, 3, 4], [0, 0, 0.3, -0.4]]))


@pytest.mark.parametrize("pattern", [(2, 4), (4, 8)])
def test_a_pattern_leaves_as_many_of_every_group_of_inputs(pattern):
    off, of = pattern
    density, w_ON, x_TN = Density(1 - off / of, pattern), drawn(6, 24), correlated(40, 24)
    cuts = (
        magnitude(w_ON, density),
        wanda(w_ON, seen(Squares, x_TN), density),
        sparsegpt(w_ON, seen(Products, x_TN), density),
    )
    for cut_ON in cuts:
        zeros = (cut_ON == 0).unflatten(1, (-1, of)).sum(2)
        assert zeros.unique().tolist() == [off]
    assert density.count((6, 24)) == 72
    largest = w_ON.abs().unflatten(1, (-1, of)).topk(of - off, 2).values.sum()
    assert cuts[0].abs().sum() == pytest.approx(float(largest))


@pytest.mark.parametrize(("size", "by_row"), [((5, 7), True), ((5, 7), False), ((6, 10), True)])
def test_as_many_stay_as_are_counted(size, by_row):
    for keep in (0.2, 0.5, 0.9):
        density = Density(keep)
        assert int(density.largest(drawn(*size), by_row=by_row).sum()) == density.count(size, by_row=by_row)


def test_products_of_many_inputs_are_those_of_all_pairs():
    x_TN = drawn(40, 500)  # in blocks of 192 inputs, the last of them narrower
    products = seen(Products, x_TN[:15])
    products.add(x_TN[15:])
    assert products.tokens == 40
    torch.testing.assert_close(products.sum_NN, x_TN.t() @ x_TN, rtol=1e-5, atol=1e-4)


def by_dense_inverses(w_ON: Tensor, x_TN: Tensor, density: Density, block: int) -> Tensor:
    """SparseGPT from its definition: the inverse Hessian of the columns that are left, made anew for each column."""
    w_ON, inputs = w_ON.double().clone(), w_ON.shape[1]
    hessian_NN = 2 / len(x_TN) * x_TN.double().t() @ x_TN.double()
    hessian_NN += DAMPING * hessian_NN.diagonal().mean() * torch.eye(inputs)
    left = [torch.linalg.inv(hessian_NN[column:, column:]) for column in range(inputs)]
    group = block if density.pattern is None else density.pattern[1]
    for column in range(inputs):
        if column % group == 0:
            columns = range(column, min(column + group, inputs))
            errors = torch.stack([w_ON[:, other].square() / left[other][0, 0] for other in columns], 1)
            off = errors.numel() - density.count(tuple(errors.shape), by_row=False)
            least = errors.flatten().argsort()[:off].tolist()
            zeros = {(at // len(columns), column + at % len(columns)) for at in least}
            if density.pattern is not None:
                order = errors.argsort(1)[:, : density.pattern[0]]
                zeros = {(row, column + int(at)) for row in range(len(order)) for at in order[row]}
        for row in range(len(w_ON)):
            if (row, column) in zeros:
                w_ON[row, column:] -= w_ON[row, column] / left[column][0, 0] * left[column][0]
                w_ON[row, column] = 0
    return w_ON


@pytest.mark.parametrize("density", [HALF, Density(0.3), TWO_OF_FOUR], ids=["half", "30 %", "2:4"])
@pytest.mark.parametrize("block", [128, 8])
def test_sparsegpt_is_what_dense_inverses_give(monkeypatch, density, block):
    monkeypatch.setattr(cutting, "BLOCK", block)
    w_ON, x_TN = drawn(5, 20), correlated(60, 20)
    found = sparsegpt(w_ON, seen(Products, x_TN), density)
    wanted = by_dense_inverses(w_ON, x_TN, density, block)
    assert torch.equal(found == 0, wanted == 0)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_where_the_first_columns_go_the_others_are_the_least_squares_solution():
    """Weights of the first four inputs are tiny: they go, and what is left makes up for them as well as it can."""
    w_ON, x_TN = drawn(3, 8).double(), correlated(50, 8)
    w_ON[:, :4] *= 1e-3
    found = sparsegpt(w_ON, seen(Products, x_TN), HALF)
    assert (found[:, :4] == 0).all()
    hessian_NN = 2 / len(x_TN) * x_TN.double().t() @ x_TN.double()
    hessian_NN += DAMPING * hessian_NN.diagonal().mean() * torch.eye(8)
    made_up = torch.linalg.solve(hessian_NN[4:, 4:], hessian_NN[4:, :4] @ w_ON[:, :4].t()).t()
    torch.testing.assert_close(found[:, 4:], w_ON[:, 4:] + made_up, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("density", [HALF, Density(0.7), TWO_OF_FOUR], ids=["half", "70 %", "2:4"])
def test_at_the_same_share_sparsegpt_errs_less_than_wanda_and_both_far_less_than_magnitude(density):
    order = torch.randperm(256, generator=torch.Generator().manual_seed(4))
    w_ON, x_TN = drawn(64, 256), correlated(600, 256) * torch.logspace(-1, 1, 256)[order]
    cuts = (
        sparsegpt(w_ON, seen(Products, x_TN), density).float(),
        wanda(w_ON, seen(Squares, x_TN), density),
        magnitude(w_ON, density),
    )
    shares = [float(cut.count_nonzero()) / cut.numel() for cut in cuts]
    assert shares == pytest.approx([density.keep] * 3, abs=1e-3)  # of a row, a block or a matrix, so not to the weight
    errors = [float((x_TN @ (w_ON - cut_ON).t()).square().sum()) for cut_ON in cuts]
    assert errors[0] < errors[1] < 0.5 * errors[2]


def test_inputs_that_are_always_zero_cost_nothing_and_go_first():
    w_ON, x_TN = drawn(4, 12), correlated(40, 12)
    x_TN[:, [2, 7]] = 0
    found = sparsegpt(w_ON, seen(Products, x_TN), Density(0.75))
    assert found.isfinite().all()
    assert (found[:, [2, 7]] == 0).all()
    assert int((found == 0).sum()) == 12
