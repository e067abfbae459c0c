"""MinHash from rensa, which is imported only where a sketch is made: `study` needs none of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsedial.errors import needs

SEED = 1


def require_rensa() -> None:
    """Raises: UserError where it is not installed."""
    with needs("rensa", "select"):
        import rensa  # noqa: F401


def minhashes(hashes: Sequence[np.ndarray], permutations: int) -> np.ndarray:
    """The MinHash sketch of each set of 64-bit hashes, which must be well mixed: rensa takes them as they are.

    Shapes: uint32 [sets, permutations]
    """
    require_rensa()
    from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]  # written in Rust, without types

    ends = np.cumsum([0, *map(len, hashes)], dtype=np.uint64)
    made = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(hashes), ends, permutations, SEED)
    return np.array(made.to_rows(), np.uint32)
