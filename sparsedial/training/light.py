"""PyTorch's optimizer without PyTorch's compiler, which takes as long to import as the rest of PyTorch."""

from __future__ import annotations

import inspect

import torch

_Optimizer = torch.optim.Optimizer


class LightOptimizer(torch.optim.Optimizer):
    """An optimizer that is never part of a compiled graph.

    PyTorch's methods import the compiler when they are first called, to hide themselves from it. These are the same
    methods without that.
    """

    add_param_group = inspect.unwrap(_Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(_Optimizer.load_state_dict)
    state_dict = inspect.unwrap(_Optimizer.state_dict)
    zero_grad = inspect.unwrap(_Optimizer.zero_grad)
