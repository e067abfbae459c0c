"""Settings that are pairs of a name and a value: `loss=final_loss,tokens=D`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsedial.errors import UserError
from sparsedial.units import parse_count


def parse_pairs(text: Any, field: str) -> dict[str, str]:
    """`a=b,c=d`, or a table from a settings file."""
    if isinstance(text, Mapping):
        return {str(key): str(value) for key, value in text.items()}
    pairs: dict[str, str] = {}
    for item in str(text).split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not (equals and name and value):
            raise UserError(f"cannot read '{item}'", hint="write it like loss=final_loss,tokens=D", field=field)
        if name in pairs:
            raise UserError(f"'{name}' is given twice, as {pairs[name]} and as {value}", field=field)
        pairs[name] = value
    return pairs


def parse_pins(text: Any, field: str) -> dict[str, float]:
    """`alpha=0.34,E=1.8`, or a table from a settings file."""
    return {name: parse_count(value, field) for name, value in parse_pairs(text, field).items()}
