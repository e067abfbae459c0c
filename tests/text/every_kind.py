"""A tokenizer of every kind that is read, and texts that it keeps."""

from __future__ import annotations

from pathlib import Path

from sparsedial.text.tokenizer import Tokenizer, byte_tokenizer, load_tokenizer, train_bpe

from .sentencepiece import write_tokenizer

EVERY_KIND = ("bytes", "bpe", "metaspace", "sequence")
TEXT = "the cat sat on  a mat. the cat, the mat?"
HARD = "the été 文字 🙂 cat\n\n sat"


def tokenizer_of(kind: str, folder: Path) -> Tokenizer:
    """A small tokenizer of a kind."""
    if kind == "bytes":
        return byte_tokenizer()
    if kind == "bpe":
        return train_bpe([TEXT.encode() * 5], 300)
    return load_tokenizer(write_tokenizer(folder, kind))


def texts_of(tokenizer: Tokenizer) -> tuple[str, ...]:
    """The easy text, and the hard one where the tokenizer keeps it."""
    return (TEXT, HARD) if tokenizer.keeps(HARD.encode(), tokenizer.encode(HARD.encode())) else (TEXT,)
