"""The methods of `study --select`: each way in which `select` leaves data out, as one word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparsedial.errors import UserError, require_known
from sparsedial.records.selection import ReferenceSide
from sparsedial.selection.scores import SCORES, SIDES
from sparsedial.units import parse_share
from sparsedial.verbs.select.settings import FAMILIES

DEFAULT_SHARES = (1.0, 0.5, 0.25)  # of a score


@dataclass(frozen=True, kw_only=True)
class Method:
    """What `select` is asked for a share; copies go first in all of them."""

    score: str = "random"  # by which a share stays
    side: ReferenceSide | None = None
    quality: tuple[str, ...] = ()  # rules that go before
    is_filter: bool = False  # whether it leaves data out without a share, too


def _scores() -> Mapping[str, Method]:
    plain = {name: Method(score=name) for name in SCORES}
    sided = {
        f"{name}:{side}": Method(score=name, side=side)
        for name, score in SCORES.items()
        if score.reference
        for side in SIDES
    }
    return {**plain, **sided}


METHODS: Mapping[str, Method] = {
    "duplicates": Method(is_filter=True),
    **_scores(),
    **{family: Method(quality=(family,), is_filter=True) for family in FAMILIES},
}


def parse_shares(value: Any, field: str = "keep") -> tuple[float, ...]:
    """Shares from `1,.5,.25` or `100%,50%`, or a list of numbers; the largest first, and the full text always."""
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    shares = sorted({parse_share(item, field) for item in items}, reverse=True)
    if shares and shares[0] > 1:
        raise UserError(f"{shares[0]:g} is more than all of the text", hint="like 1,.5,.25", field=field)
    if shares in ([1.0], [100.0]):
        raise UserError("leaves nothing out", hint="like 1,.5,.25", field=field)
    return tuple(shares) if not shares or shares[0] == 1 else (1.0, *shares)


def require_method(name: str | None, keep: Sequence[float]) -> None:
    """Raises: UserError for a method that is not known, and for shares without one."""
    if name is None and keep:
        raise UserError("chooses nothing without a method", hint="add <select>, like random", field="keep")
    if name is not None:
        require_known(name, METHODS, "select")


def asked_shares(name: str, keep: Sequence[float]) -> tuple[float | None, ...]:
    """The shares below the full text, largest first; None stands for all that a filter leaves."""
    if keep:
        return tuple(keep[1:])
    return (None,) if METHODS[name].is_filter else DEFAULT_SHARES[1:]
