"""Qwen's sliding windows: a switch, and the first layer that has a window."""

from __future__ import annotations

from sparsedial.shape.hugging_face.values import Config, Fields
from sparsedial.shape.shape import Shape

DEFAULTS: Fields = {"use_sliding_window": False, "sliding_window": 4096}
KINDS = ("full_attention", "sliding_attention")


def check_layer_types(config: Config) -> None:
    """Raises: UserError where a layer's attention is neither full nor a sliding window."""
    kinds = config.get("layer_types")
    if kinds is not None and not (isinstance(kinds, list) and all(kind in KINDS for kind in kinds)):
        raise config.error(f"layer_types={kinds!r} is not supported", hint=f"supported are {' and '.join(KINDS)}")


def read_windows(config: Config) -> Fields:
    """The window, where it is switched on, and its first layer: `max_window_layers`, or as `layer_types` says.

    Raises: UserError where a layer with full attention follows one with a window.
    """
    if not config.get("use_sliding_window"):
        return {}
    kinds, layers = config.get("layer_types"), config.whole("num_hidden_layers")
    full = min(config.whole("max_window_layers"), layers)
    if kinds is not None:
        full = kinds.index(KINDS[1]) if KINDS[1] in kinds else layers
        if kinds != [KINDS[0]] * full + [KINDS[1]] * (layers - full):
            raise config.error("layer_types mixes full and sliding attention in an order that is not supported")
    window = config.whole("sliding_window", 0)
    return {"window": window, "full_layers": full} if window and full < layers else {}


def written_layer_types(shape: Shape) -> list[str]:
    """The attention of each layer, by its window."""
    return [KINDS[shape.window_of(layer) > 0] for layer in range(shape.layers)]


def written_windows(shape: Shape) -> Fields:
    """The same, with the first layer that has the window."""
    windows = written_window(shape)
    return {**windows, "max_window_layers": shape.full_layers} if windows else {}


def written_window(shape: Shape) -> Fields:
    """The switch and the window; nothing where there is none."""
    return {"sliding_window": shape.window, "use_sliding_window": True} if shape.window else {}
