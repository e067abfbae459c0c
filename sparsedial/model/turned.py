"""A model at a setting of its dial, whose weights are the model's own. B sequences, L layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from sparsedial.errors import UserError
from sparsedial.model.gates import GATES_HINT, Gates
from sparsedial.model.transformer import DenseFeedForward, Transformer
from sparsedial.shape.turned import Turned, visits

HINT = f"{GATES_HINT.format('CHECKPOINT')}, and model.gates.gates_of reads them"


def at_setting(model: Transformer, setting: Turned, gates: Gates | None = None) -> Transformer:
    """The model at a setting; weights and tables are shared, so it takes no memory of its own.

    `gates` are the model's own, for a setting with a share of the neurons. Decoding at such settings keeps one copy of
    the ups of dense layers, which all of them share.

    Raises: UserError for a setting that the model cannot have, or that needs gates where none are given.
    """
    shape = setting.shape(model.shape)
    if shape == model.shape and setting.neurons == 1:
        return model
    with torch.device("meta"):  # where arithmetic would import 150 MB of PyTorch, so not for the rotary table
        turned = Transformer(shape, (model.cosine_SC, model.sine_SC))
    turned.stream_dtype = model.stream_dtype
    turned._parameters, turned._buffers = model._parameters, model._buffers
    kept = [model.blocks[layer] for layer in setting.kept(model.shape)]
    for ours, theirs in zip([*turned.blocks, *turned.predictions], [*kept, *model.predictions], strict=True):
        _share(ours, theirs)
    if setting.neurons != 1:
        _open(turned, setting, setting.kept(model.shape), gates)
    return turned.train(model.training)


def _share(ours: nn.Module, theirs: nn.Module) -> None:
    """Give a module, and those in it, the weights of another of the same sizes."""
    for mine, other in zip(ours.modules(), theirs.modules(), strict=True):
        mine._parameters, mine._buffers = other._parameters, other._buffers
        if isinstance(mine, DenseFeedForward) and isinstance(other, DenseFeedForward):
            mine.threshold, mine.ups = other.threshold, other.ups


def require_gates(setting: Turned, gates: Gates | None) -> Gates:
    """The gates of a model, which a setting with a share of the neurons needs.

    Raises: UserError where there are none.
    """
    if gates is None:
        raise UserError(f"neurons={setting.neurons:g} needs the gates of the model, which are measured", hint=HINT)
    return gates


def _open(turned: Transformer, setting: Turned, kept: Sequence[int], gates: Gates | None) -> None:
    """Let a share of the neurons of dense layers take part; `kept` has the layers' numbers in the whole model."""
    gates = require_gates(setting, gates)
    device = turned.norm_D.device
    for number, block in zip(kept, turned.blocks, strict=True):
        part = block.feed_forward
        if isinstance(part, DenseFeedForward):
            part.threshold = gates.at(number, setting.neurons, device)


def side_by_side(
    model: Transformer, settings: Sequence[Turned], gates: Gates | None = None
) -> tuple[Transformer, Tensor]:
    """The model in which sequences of these settings are rows of one call, and each row's experts in each layer.

    Shapes: to [L, B], modules of multi-token prediction included
    Raises: UserError where they differ in more than k, or as `at_setting`.
    """
    first, shapes = settings[0], [setting.shape(model.shape) for setting in settings]
    alike = {
        (setting.kept(model.shape), setting.neurons, shape.top_p)
        for setting, shape in zip(settings, shapes, strict=True)
    }
    if len(alike) > 1:
        raise UserError("sequences that are written together may differ in k, not in p, neurons or skipped layers")
    counts = [tuple(setting.counts(model.shape).values()) for setting in settings]
    most = at_setting(model, replace(first, top_k=tuple(map(max, zip(*counts, strict=True)))), gates)
    return most, torch.tensor([visits(shape) for shape in shapes]).t()
