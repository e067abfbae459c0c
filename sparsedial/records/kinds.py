"""What a file of ours is, by its content: users rename files, and browsers number them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from sparsedial.store import parse_json

Kind = Literal["plan", "law", "profile", "study", "run", "dial"]


def kind_of(path: Path) -> Kind | None:
    """The kind of record in a file; None where it is missing, not JSON, or another file."""
    try:
        return kind_in(parse_json(path.read_bytes()))
    except (OSError, ValueError):
        return None


def kind_in(values: Any) -> Kind | None:
    """The kind of record that plain values are."""
    if not isinstance(values, Mapping):
        return None
    keys = cast("Mapping[str, Any]", values).keys()
    return next((kind for kind, own in KEYS.items() if own <= keys), None)


# Keys that no other kind has together.
KEYS: Mapping[Kind, set[str]] = {
    "plan": {"shape", "recipe", "predicted_loss"},
    "law": {"form", "samples", "fitted_range"},
    "profile": {"coefficients", "watts"},
    "study": {"frozen", "elapsed_seconds"},
    "run": {"hash", "recipe", "steps_done"},
    "dial": {"checkpoint_digest", "settings"},
}
