"""Which neurons of dense feed-forward layers take part for a token: those whose gate is open far enough, and of them
those that then write enough.

All gates are read. A gate's score is |silu(gate)| times a weight of its own: what the neuron's up typically is, times
the norm of what it writes. Ups are read where it reaches a threshold. The score of what is written is |silu(gate) * up|
times that norm. Downs are read where it reaches another one. A layer has two thresholds for each share of its neurons,
measured on a text (pruning/gates.py): the share is that of ups and downs together.

The file lies beside `dial.json` and has the format of safetensors. It is not called so, since other programs take every
`*.safetensors` of a folder for weights.

B sequences, S positions, D d_model, F neurons of a layer, H = 2F, N shares.

Source: CATS, Lee et al. 2024 (arXiv 2404.08763), of gates, and TEAL, Liu et al. 2024 (arXiv 2408.14690), of
activations; the weights of gates and both in turn are ours
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from sparsedial.errors import UserError
from sparsedial.kernels.transposed import copy_values
from sparsedial.model.digests import digest_of
from sparsedial.model.pages import empty_in_large_pages
from sparsedial.records.dial_file import GATES_FILE
from sparsedial.shape.shape import Shape
from sparsedial.shape.turned import LEAST_SHARE, Turned
from sparsedial.store import write_atomically

STEPS = round(1 / LEAST_SHARE)
SHARES = tuple((step + 1) / STEPS for step in range(STEPS))  # whose thresholds are kept; between them they are straight
APART = 0.6  # how much of its variance the share of ups lies above a share, and that of downs below it
GATES_HINT = "`sparsedial dial {} --measure --text TEXT` measures them"
FORMAT = "1"


@dataclass(frozen=True, eq=False)
class Threshold:
    """The least scores of a neuron that takes part, with the weights of the scores."""

    gate_F: Tensor
    norm_F: Tensor  # of what a neuron writes
    least_gate: float  # for its up to be read
    least_written: float  # for its down

    def open(self, gate_BSF: Tensor) -> Tensor:
        """Whose gate is open far enough. Shapes: to [B, S, F] of bool"""
        return functional.silu(gate_BSF).abs() * self.gate_F >= self.least_gate

    def activations(self, h_BSH: Tensor) -> Tensor:
        """What multiplies the downs, 0 for neurons that take no part. Shapes: to [B, S, F]"""
        gate_BSF, up_BSF = h_BSH.chunk(2, dim=-1)
        a_BSF = (functional.silu(gate_BSF) * up_BSF).where(self.open(gate_BSF), 0)
        return a_BSF.where(a_BSF.abs() * self.norm_F >= self.least_written, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Gates:
    """What the gates of a model's dense layers showed on a text, by the layers' numbers."""

    weights: Mapping[int, Tensor]  # of gates, and norms of what neurons write: each [2, F]
    thresholds: Mapping[int, Tensor]  # of gates and of what is written, at `SHARES`, falling to 0: each [2, N]

    def at(self, layer: int, share: float, device: torch.device) -> Threshold:
        """A layer's thresholds for a share of its neurons."""
        gate_F, norm_F = self.weights[layer].to(device).unbind()
        opening, written = (float(np.interp(share, SHARES, least_N)) for least_N in self.thresholds[layer].numpy())
        return Threshold(gate_F, norm_F, opening, written)


def shares_of_parts(share: float) -> tuple[float, float]:
    """The shares of ups and of downs that are read, for a share of both together.

    Source: ours; reading more ups than downs loses less (LOG.md, 2026-11-30)
    """
    apart = APART * share * (1 - share)
    return share + apart, share - apart


class Ups:
    """The ups of a layer with the weights of each neuron side by side, as the decoding kernel reads a few of them."""

    def __init__(self) -> None:
        self._rows_FD: Tensor | None = None
        self._version: int | None = None  # of the weights, when they were copied

    def rows(self, w_in_DH: Tensor) -> Tensor:
        """A copy, made when it is first asked for and where the weights have changed since. Shapes: to [F, D]"""
        version = None if w_in_DH.is_inference() else w_in_DH._version
        ups_FD = w_in_DH.detach().chunk(2, dim=1)[1].t()
        if self._rows_FD is None:
            self._rows_FD, self._version = empty_in_large_pages(ups_FD.shape, ups_FD.dtype), None
        if version is None or version != self._version:
            copy_values(self._rows_FD, ups_FD)  # in the same memory, whose address decoders know
        self._version = version
        return self._rows_FD


def write_gates(file: Path, gates: Gates, checkpoint_digest: str, text_digest: str, tokens: int) -> None:
    """Write the gates of a checkpoint, with the digest of their text and how many tokens of it were read.

    Raises: UserError where the file cannot be written.
    """
    tensors = {f"{layer}.weights": weight_2F.contiguous() for layer, weight_2F in gates.weights.items()}
    tensors |= {f"{layer}.thresholds": least_2N.contiguous() for layer, least_2N in gates.thresholds.items()}
    facts = {
        "format": FORMAT,
        "checkpoint_digest": checkpoint_digest,
        "text_digest": text_digest,
        "tokens": str(tokens),
    }
    write_atomically(file, save(tensors, facts))


def gates_of(folder: Path, shape: Shape, settings: Iterable[Turned], file: Path | None = None) -> Gates | None:
    """The gates of a checkpoint of this Shape, from its folder or another file, where one of the settings needs them.

    Raises: UserError as `read_gates`.
    """
    if all(setting.neurons == 1 for setting in settings):
        return None
    widths = {layer: shape.layer(layer).d_ff for layer in range(shape.layers) if not shape.is_sparse(layer)}
    return read_gates(folder, widths, file)


def read_gates(folder: Path, widths: Mapping[int, int], file: Path | None = None) -> Gates:
    """The gates of a checkpoint in a folder; `widths` are the neurons of its dense layers.

    Raises: UserError where the file is missing, damaged or of another checkpoint.
    """
    file, again = file or folder / GATES_FILE, GATES_HINT.format(shlex.quote(str(folder)))
    if not file.exists():
        raise UserError(f"{file}: no such file, so which neurons to leave out is not measured", hint=again)
    try:
        with safe_open(file, "pt") as held:
            facts = held.metadata() or {}
            found = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: not readable as the gates of a checkpoint ({error})", hint=again) from error
    sizes = {f"{layer}.weights": [2, width] for layer, width in widths.items()}
    sizes |= {f"{layer}.thresholds": [2, len(SHARES)] for layer in widths}
    if facts.get("checkpoint_digest") != digest_of(folder):
        raise UserError(f"{file} is of another checkpoint, or of this one before it was changed", hint=again)
    if {name: list(tensor.shape) for name, tensor in found.items()} != sizes or facts.get("format") != FORMAT:
        raise UserError(f"{file}: does not hold the gates of this checkpoint's dense layers", hint=again)
    if not all(bool(tensor.isfinite().all()) for tensor in found.values()):
        raise UserError(f"{file}: holds values that are not finite", hint=again)
    return Gates(
        weights={layer: found[f"{layer}.weights"].float() for layer in widths},
        thresholds={layer: found[f"{layer}.thresholds"].float() for layer in widths},
    )
