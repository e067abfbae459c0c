"""Waits for a GPU as errors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def waits_are_errors() -> Iterator[None]:
    """Within it PyTorch raises a RuntimeError for an operation that waits for the GPU.

    PyTorch warns at the first use that it does not find all. Where warnings are errors, as in our tests, that one would
    end the caller with the mode still on, and whatever it does next would fail.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Synchronization debug mode")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
