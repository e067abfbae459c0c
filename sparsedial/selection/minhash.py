"""MinHash and LSH from rensa, or why they are not there."""

from __future__ import annotations

from sparsedial.errors import UserError

try:
    # written in Rust, without types
    from rensa import RMinHash, RMinHashLSH  # pyright: ignore[reportAttributeAccessIssue]
except ModuleNotFoundError as missing:
    raise UserError("the package 'rensa' is missing", hint="pip install 'sparsedial[select]'") from missing

__all__ = ["RMinHash", "RMinHashLSH"]
