"""A permutation that is computed position by position, so that an order of any length takes no memory."""

from __future__ import annotations

import numpy as np


def permuted(positions: np.ndarray, count: int, key: int) -> np.ndarray:
    """The images of these positions under a permutation of 0..count-1 that is drawn by `key`.

    A Feistel network on pairs (left, right) of about the square root of count, repeated while its result is outside.

    Source:  Black and Rogaway 2002, "Ciphers with arbitrary finite domains"
    """
    wide = max(1, int(np.ceil(np.sqrt(count))))
    high = -(-count // wide)
    result = positions.astype(np.uint64)
    outside = np.ones(len(positions), bool)
    while outside.any():
        left, right = np.divmod(result[outside], np.uint64(wide))
        for turn in range(4):
            left = (left + _mixed(right, mix(key + 2 * turn)) % np.uint64(high)) % np.uint64(high)
            right = (right + _mixed(left, mix(key + 2 * turn + 1)) % np.uint64(wide)) % np.uint64(wide)
        result[outside] = left * np.uint64(wide) + right
        outside = result >= np.uint64(count)
    return result.astype(np.int64)


def mix(value: int) -> int:
    """SplitMix64's output function: a 64-bit number that looks unrelated to its neighbours'."""
    value = (value + 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return value ^ value >> 31


def _mixed(values: np.ndarray, key: int) -> np.ndarray:
    values = (values ^ np.uint64(key)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)
