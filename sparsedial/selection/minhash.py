"""MinHash from rensa, or why it is not there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsedial.errors import UserError

try:
    # written in Rust, without types
    from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]
except ModuleNotFoundError as missing:
    raise UserError("the package 'rensa' is missing", hint="pip install 'sparsedial[select]'") from missing

SEED = 1


def minhashes(hashes: Sequence[np.ndarray], permutations: int) -> np.ndarray:
    """The MinHash sketch of each set of 64-bit hashes, which must be well mixed: rensa takes them as they are.

    Shapes: uint32 [sets, permutations]
    """
    ends = np.cumsum([0, *map(len, hashes)], dtype=np.uint64)
    made = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(hashes), ends, permutations, SEED)
    return np.array(made.to_rows(), np.uint32)
