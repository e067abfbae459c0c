"""Which tokens end a text, and which are never part of one, by the files of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.model.greedy import Vocabulary
from sparsedial.text.tokenizer import Tokenizer

FILES = ("generation_config.json", "config.json")  # the first that names an end token decides


def vocabulary_of(folder: Path, tokenizer: Tokenizer, vocab_size: int) -> Vocabulary:
    """The end tokens of a checkpoint, of its files or else of its tokenizer, and the ids that the tokenizer lacks.

    An end token that the tokenizer lacks may be drawn: it is no part of the text.

    Raises: UserError for a file that is damaged, or an end token that is no number.
    """
    stated = (_stated(folder / name) for name in FILES)
    ends = next((found for found in stated if found), frozenset({tokenizer.end_token}))
    absent = tokenizer.absent(vocab_size).tolist()
    return Vocabulary(ends=ends, absent=tuple(token for token in absent if token not in ends))


def _stated(path: Path) -> frozenset[int]:
    """The end tokens that a file names: one, a list, or none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    stated = content.get("eos_token_id") if isinstance(content, dict) else None
    listed = stated if isinstance(stated, list) else [] if stated is None else [stated]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in listed):
        raise UserError(f"{path}: eos_token_id={stated!r} is neither a token's number nor a list of them")
    return frozenset(listed)
