"""The loss of a model larger than memory: each layer reads all windows before the next one is read from its file.

So a measurement that was stopped goes on from the last layer that was done. W windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch

from sparsedial.model.router import Routing
from sparsedial.model.transformer import Transformer
from sparsedial.pruning.in_turn import Passage
from sparsedial.pruning.quality import Nats
from sparsedial.pruning.shelf import Shelf
from sparsedial.pruning.windows import Windows


@torch.no_grad()
def nats_in_turn(model: Transformer, texts: Mapping[str, Windows], shelf: Shelf) -> dict[str, Nats]:
    """As `nats_of`; the shelf holds nothing but what this measurement has found before."""
    return {
        name: Nats(windows, _nats(model, windows, shelf.under(str(number))))
        for number, (name, windows) in enumerate(texts.items())
    }


def _nats(model: Transformer, windows: Windows, shelf: Shelf) -> np.ndarray:
    """The loss of each window. Shapes: to [W]"""
    passage = Passage(model, torch.from_numpy(windows.ids_WS1), shelf)
    for turn in passage.turns():
        turn.pass_on(partial(turn.block, routing=Routing()))
    return passage.end(lambda: {"nats": passage.losses()})["nats"]().numpy()
