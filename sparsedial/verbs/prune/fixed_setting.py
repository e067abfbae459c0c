"""`prune --fix-setting`: what a checkpoint is at a setting of its dial, as a checkpoint of its own."""

from __future__ import annotations

import time
from pathlib import Path
from shlex import quote

import torch

from sparsedial.errors import UserError, about
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.twin import write_like
from sparsedial.model.writing import whole_folder
from sparsedial.pruning.folder import require_free
from sparsedial.pruning.layers import KeptLayers
from sparsedial.records.prune import FixedSetting
from sparsedial.records.setting import Setting
from sparsedial.shape.turned import parse_turned
from sparsedial.verbs.checkpoint_names import name_of
from sparsedial.verbs.origin import require_checkpoint
from sparsedial.verbs.prune.answer import written_folder


def fixed_setting(checkpoint: Path, text: str, out: Path) -> FixedSetting:
    """Write the checkpoint with the setting's number of experts and without the layers that it skips.

    Raises: UserError for a damaged checkpoint, a setting that it cannot have or that no format expresses, or a folder
        that is not free.
    """
    began = time.perf_counter()
    require_checkpoint(checkpoint)
    require_free(out, checkpoint)
    whole, turned = read_checkpoint(checkpoint, torch.bfloat16), parse_turned(text)
    with about("fix_setting"):
        setting = Setting.of(turned, whole.shape)
    if turned.neurons != 1:
        raise UserError(
            f"neurons={turned.neurons:g} depends on each token's gates, which no checkpoint's format expresses",
            hint=f"`sparsedial generate {quote(str(checkpoint))} PROMPT --setting {setting.name}` computes it",
            field="fix_setting",
        )
    layers = tuple(turned.kept(whole.shape))
    tensors = list(KeptLayers(layers, whole.shape.layers).stream(whole.tensors))
    with whole_folder(out.resolve()) as partial:
        write_like(partial, checkpoint, turned.shape(whole.shape), tensors, layers=layers)
        return FixedSetting(
            checkpoint=name_of(checkpoint),
            out=written_folder(partial, out),
            setting=setting,
            weight_bytes=sum(tensor.nbytes for tensor in tensors),
            wall_seconds=time.perf_counter() - began,
        )
