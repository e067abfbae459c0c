"""Single weights of one matrix turned off: which stay, by magnitude, Wanda or SparseGPT.

O outputs and N inputs of a matrix, T tokens, B columns of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedial.pruning.counts import nearest
from sparsedial.shape.tensors import Size

BLOCK, DAMPING = 128, 0.01  # as SparseGPT's authors
PRODUCTS = 192  # inputs whose products with those before them are one multiplication


@dataclass(frozen=True)
class Density:
    """How many weights stay: a share, or all but so many of each group of neighbouring inputs."""

    keep: float
    pattern: tuple[int, int] | None = None  # that are off, and of how many

    def largest(self, score_ON: Tensor, *, by_row: bool = True) -> Tensor:
        """Where the highest scores are: of each output, or of the whole matrix. Shapes: [O, N] to [O, N] of bool"""
        if self.pattern is not None:
            off, of = self.pattern
            return _largest(score_ON.unflatten(1, (-1, of)), of - off).flatten(1)
        rows = score_ON if by_row else score_ON.reshape(1, -1)
        return _largest(rows, nearest(self.keep * rows.shape[1])).view_as(score_ON)

    def count(self, size: Size, *, by_row: bool = True) -> int:
        """How many weights of a matrix that is; one that was zero before counts as any other."""
        outputs, inputs = size
        if self.pattern is not None:
            off, of = self.pattern
            return outputs * inputs // of * (of - off)
        return outputs * nearest(self.keep * inputs) if by_row else nearest(self.keep * outputs * inputs)


def _largest(scores: Tensor, count: int) -> Tensor:
    """True at the `count` largest of the last axis."""
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, scores.topk(count, -1, sorted=False).indices, True)


class Squares:
    """The sum of squares of each input of a matrix."""

    def __init__(self, inputs: int) -> None:
        self.tokens, self.sum_N = 0, torch.zeros(inputs, dtype=torch.float64)

    def add(self, x_TN: Tensor) -> None:
        """Count the inputs of some tokens."""
        self.tokens += len(x_TN)
        self.sum_N += x_TN.square().sum(0, dtype=torch.float64).cpu()


class Products:
    """The sum of products of each two inputs of a matrix; over the tokens, the Hessian of its squared error."""

    def __init__(self, inputs: int) -> None:
        self.tokens, self._upper_NN = 0, torch.zeros(inputs, inputs)

    def add(self, x_TN: Tensor) -> None:
        """Count the inputs of some tokens; below the diagonal only what its blocks hold, which takes two thirds."""
        self.tokens += len(x_TN)
        for start in range(0, x_TN.shape[1], PRODUCTS):
            end = start + PRODUCTS
            self._upper_NN[:end, start:end] += (x_TN[:, :end].t() @ x_TN[:, start:end]).cpu()

    @property
    def sum_NN(self) -> Tensor:
        """The sum of products of all pairs."""
        return self._upper_NN.triu() + self._upper_NN.triu(1).t()


Seen = Squares | Products


def magnitude(w_ON: Tensor, density: Density) -> Tensor:
    """The matrix with its smallest weights at zero."""
    return w_ON * density.largest(w_ON.abs(), by_row=False)


def wanda(w_ON: Tensor, seen: Squares, density: Density) -> Tensor:
    """The matrix with those weights of each output at zero whose |weight| times norm of the input is smallest.

    Source: Wanda (arXiv 2306.11695), section 3
    """
    return w_ON * density.largest(w_ON.abs().double() * seen.sum_N.sqrt())


def sparsegpt(w_ON: Tensor, seen: Products, density: Density) -> Tensor:
    """The matrix with weights at zero whose loss the later weights of their output make up for best.

    Columns go one by one. What a zero adds to the output error is spread over the columns behind it, by the inverse
    Hessian of these columns. In each block of columns the weights of the least error go.

    Source: SparseGPT (arXiv 2301.00774), algorithm 1, and its code for damping and for inputs that are always zero
    """
    sum_NN = seen.sum_NN
    w_ON, inverse_NN = w_ON.double().clone(), _inverse(sum_NN, seen.tokens)
    w_ON[:, sum_NN.diagonal() == 0] = 0
    for start in range(0, w_ON.shape[1], BLOCK):
        end = min(start + BLOCK, w_ON.shape[1])
        w_OB, inverse_BB = w_ON[:, start:end], inverse_NN[start:end, start:end]
        errors_OB = _cut_block(w_OB, inverse_BB, density)
        w_ON[:, end:] -= errors_OB @ inverse_NN[start:end, end:]
    return w_ON


def _inverse(sum_NN: Tensor, tokens: int) -> Tensor:
    """The upper Cholesky factor of the inverse of the dampened Hessian. Shapes: [N, N]"""
    hessian_NN = sum_NN.double() * (2 / tokens)
    diagonal_N = hessian_NN.diagonal()
    diagonal_N[diagonal_N == 0] = 1
    diagonal_N += DAMPING * diagonal_N.mean()
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian_NN)), upper=True)


def _cut_block(w_OB: Tensor, inverse_BB: Tensor, density: Density) -> Tensor:
    """Cut the columns of a block in place; the errors, each over its column's pivot. Shapes: [O, B] to [O, B]"""
    w_BO = w_OB.t().contiguous()  # a column's weights lie side by side: about half the time
    pivots_B, errors_BO = inverse_BB.diagonal(), torch.zeros_like(w_BO)
    group = len(w_BO) if density.pattern is None else density.pattern[1]
    stays_BO = torch.zeros_like(w_BO, dtype=torch.bool)
    for column in range(len(w_BO)):
        if column % group == 0:  # chosen by the weights as the columns before have left them
            chosen = slice(column, column + group)
            error_OB = (w_BO[chosen].t() / pivots_B[chosen]).square()
            stays_BO[chosen] = density.largest(error_OB, by_row=False).t()
        whole_O = w_BO[column].clone()
        w_BO[column] *= stays_BO[column]
        errors_BO[column] = (whole_O - w_BO[column]) / pivots_B[column]
        w_BO[column + 1 :] -= errors_BO[column] * inverse_BB[column, column + 1 :, None]
    w_OB.copy_(w_BO.t())
    return errors_BO.t()


def _of_rows(size: Size, density: Density) -> int:
    return density.count(size)


def _of_blocks(size: Size, density: Density) -> int:
    starts = range(0, size[1], BLOCK)
    return sum(density.count((size[0], min(BLOCK, size[1] - start)), by_row=False) for start in starts)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the matrices of a layer are cut by what is seen of their inputs."""

    seen: Callable[[int], Seen]  # for so many inputs
    cut: Callable[[Tensor, Seen, Density], Tensor]
    count: Callable[[Size, Density], int]  # of the weights that stay


RULES: Mapping[str, Rule] = {
    "wanda": Rule(seen=Squares, cut=wanda, count=_of_rows),  # type: ignore[arg-type]
    "sparsegpt": Rule(seen=Products, cut=sparsegpt, count=_of_blocks),  # type: ignore[arg-type]
}
