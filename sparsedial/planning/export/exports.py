"""The trainers that a plan can be written for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sparsedial.planning.export.exported import Exported
from sparsedial.planning.export.hugging_face import hugging_face
from sparsedial.planning.export.megatron import megatron
from sparsedial.planning.export.torchtitan import torchtitan
from sparsedial.shape.shape import Shape

EXPORTS: dict[str, Callable[[Shape, Mapping[str, Any]], Exported]] = {
    "transformers": hugging_face,
    "torchtitan": torchtitan,
    "megatron": megatron,
}
