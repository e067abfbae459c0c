"""White space of a text squeezed, without a string for each word."""

from __future__ import annotations

import numpy as np

from sparsedial.text.compiled import address, library

SPACE = 0x20
BLANK = np.isin(np.arange(256), list(b"\t\n\v\f\r "))  # by byte
FEW = 512  # bytes, for which arrays take longer than strings


def squeezed(text: bytes) -> bytes:
    """`b" ".join(text.split())`: the words, one space apart."""
    if len(text) < FEW:
        return b" ".join(text.split())
    return squeezed_by_arrays(text) if library is None else _compiled(text)


def _compiled(text: bytes) -> bytes:
    found = np.empty(len(text), np.uint8)
    return found[: library.squeeze(text, len(text), address(found))].tobytes()


def squeezed_by_arrays(text: bytes) -> bytes:
    """The same with NumPy."""
    letters = np.frombuffer(text, np.uint8)
    blank = BLANK[letters]
    stays = ~blank
    stays[1:] |= ~blank[:-1]  # the first blank after a word
    found = np.where(blank, np.uint8(SPACE), letters)[stays]
    return found[: len(found) - (len(found) > 0 and found[-1] == SPACE)].tobytes()
