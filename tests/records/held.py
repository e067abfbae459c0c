"""What every JSON that we write must hold to: its record's keys in their order, reasons beside nulls, numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from sparsedial.records.record import Record, parse, plain

T = TypeVar("T", bound=Record)
GIVEN = ("setting_reason",)  # why a value is this one, not why there is none


def of_file(path: Path, cls: type[T]) -> T:
    """The record of a file that was written."""
    values = json.loads(path.read_text())
    assert values.pop("schema_version") == 1
    assert len(values.pop("record_digest")) == 64
    return of_values(values, cls)


def of_values(values: Any, cls: type[T]) -> T:
    """The record of plain values, which have all of its keys in their order and no others, and explain their nulls."""
    record = parse(values, cls, cls.__name__)
    assert plain(record) == values
    assert order(plain(record)) == order(values)
    assert list(unexplained(values)) == []
    return record


def order(value: Any) -> Any:
    """The keys of plain values, in their order."""
    if isinstance(value, dict):
        return [(key, order(item)) for key, item in value.items()]
    return [order(item) for item in value] if isinstance(value, list) else None


def unexplained(value: Any, path: str = "") -> Iterator[str]:
    """Nulls whose reason is null too, reasons of what is no null, and what is no number."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from unexplained(item, f"{path}[{at}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            name = f"{path}.{key}" if path else key
            yield from unexplained(item, name) if _said(value, key) else [name]


def _said(values: dict[str, Any], key: str) -> bool:
    value = values[key]
    if key in GIVEN:
        return value is not None
    if value is None:
        reasons = {f"{key}_reason", f"{key}_source", *(["interval_reason"] if key in ("low", "high") else [])}
        given = [values[name] for name in reasons & set(values)]
        return not given or any(reason is not None for reason in given)
    about = values.get(key.removesuffix("_reason"))
    unknown = about is None or (isinstance(about, dict) and not any(about.values()))  # a table of nulls
    return unknown or not key.endswith("_reason")
