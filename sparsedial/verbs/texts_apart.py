"""Two texts of a command that must not share a file: what decides by the one is judged on the other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sparsedial.errors import UserError


def require_apart(first: Iterable[str], second: Iterable[str], why: str, field: str) -> None:
    """Check that no file or folder of the second text is one of the first, lies in one or holds one.

    `field` is the setting of the second text, and `why` says what would be wrong.

    Raises: UserError.
    """
    firsts = [Path(name).expanduser().resolve() for name in first]
    for other in (Path(name).expanduser().resolve() for name in second):
        for one in firsts:
            if one in (other, *other.parents) or other in one.parents:
                raise UserError(
                    f"{other} and {one} share text, and {why}", hint="name text that lies apart", field=field
                )
