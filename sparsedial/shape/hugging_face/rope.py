"""Rotary positions in a `config.json`: their base and their scaling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sparsedial.shape.hugging_face.values import Config, Fields, is_number
from sparsedial.shape.shape import RopeScaling, Shape

KINDS = ("yarn", "llama3", "linear")
YARN = {name: name for name in ("beta_fast", "beta_slow", "truncate", "attention_factor")}
LLAMA3 = {"low_frequency_factor": "low_freq_factor", "high_frequency_factor": "high_freq_factor"}
SCALES = {name: name for name in ("mscale", "mscale_all_dim")}
NAMES = {**YARN, **SCALES, **LLAMA3}  # ours to theirs
SHARE = "partial_rotary_factor"  # rotated channels of a head over all
ORIGINAL = "original_max_position_embeddings"


def rope_table(config: Config) -> Mapping[str, Any]:
    """The config's table of rotary positions; the old name goes before the new one, as in `transformers`.

    Raises: UserError for anything but one table for all layers.
    """
    name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    rope = config.get(name) or {}
    if not isinstance(rope, Mapping):
        raise config.error(f"{name}={rope!r} is not a table of names and values")
    kinds = [key for key, value in rope.items() if isinstance(value, Mapping)]
    if kinds:
        raise config.error(f"{name} by layer type ({', '.join(map(str, kinds))}) is not supported")
    return rope


def read_rope(config: Config) -> Fields:
    """The base and the scaling.

    Raises: UserError for a scaling of another kind, or one with values that are not numbers.
    """
    rope = rope_table(config)
    base = config if rope.get("rope_theta") is None else Config(rope, config.origin)
    return {"rope_theta": base.positive("rope_theta"), "rope_scaling": _scaling(config, rope)}


def read_rotated(config: Config, head_dim: int) -> int:
    """How many channels of a head are rotated; 0 is all.

    Raises: UserError for a share that is none, or gives an odd number.
    """
    table = Config({**config.values, **rope_table(config)}, config.origin)
    factor = table.positive(SHARE)
    rotated = int(head_dim * factor)
    if factor > 1 or rotated % 2 or not rotated:
        raise config.error(f"{SHARE}={factor:g} of head_dim={head_dim} is no even number of channels")
    return rotated if rotated < head_dim else 0


def share(shape: Shape) -> float:
    """The share of a head's channels that are rotated, such that its product with the channels is not below them."""
    factor = shape.rotary_dim / shape.head_dim
    return factor if int(shape.head_dim * factor) == shape.rotary_dim else math.nextafter(factor, 2)


def _scaling(config: Config, rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind in ("default", None):
        return None
    if kind not in KINDS:
        raise config.error(
            f"rope_type={kind!r} is not supported", hint="supported are default, linear, llama3 and yarn"
        )
    stated: Fields = {
        "factor": rope.get("factor"),
        "original_context": config.get(ORIGINAL) or rope.get(ORIGINAL) or config.get("max_position_embeddings"),
        **{ours: rope.get(theirs) for ours, theirs in NAMES.items() if _states(rope, theirs)},
    }
    for name, value in stated.items():
        if not (isinstance(value, bool) if name == "truncate" else is_number(value)):
            raise config.error(f"rope_scaling's {NAMES.get(name, name)}={value!r} is not a valid value for {kind}")
    return RopeScaling(kind=kind, **{**stated, "original_context": int(stated["original_context"])})


def _states(rope: Mapping[str, Any], name: str) -> bool:
    """Whether a table sets a value; for YaRN's borders 0 means the default."""
    value = rope.get(name)
    return value is not None and not (name in ("beta_fast", "beta_slow") and value == 0)


def written_rope(shape: Shape) -> Fields:
    """The table of a shape's rotary positions."""
    scaling = shape.rope_scaling
    if scaling is None:
        return {"rope_type": "default", "rope_theta": shape.rope_theta}
    names = {"yarn": YARN, "llama3": LLAMA3, "linear": {}}[scaling.kind]
    # Latent attention reads the scales of the logits with a scaling of any kind.
    values = {theirs: getattr(scaling, ours) for ours, theirs in {**names, **SCALES}.items()}
    return {
        "rope_type": scaling.kind,
        "rope_theta": shape.rope_theta,
        "factor": scaling.factor,
        ORIGINAL: scaling.original_context,
        **{name: value for name, value in values.items() if value is not None and (value or name not in SCALES)},
    }
