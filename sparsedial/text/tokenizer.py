"""From text to token ids and back: bytes, a BPE trained on the text, or any tokenizer.json."""

from __future__ import annotations

import functools
import gzip
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sparsedial import store
from sparsedial.errors import UserError, about
from sparsedial.store import Fault

END = "<|endoftext|>"
END_NAMES = (END, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
MOST_BPE = 1_000_000  # four times the largest vocabulary of a published model
LEAST_BPE = 257  # the end token and one token for each byte value


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Text to token ids and back; without a backend the ids are the bytes themselves and NUL is the end token."""

    name: str
    vocab_size: int
    end_token: int
    digest: str
    backend: Any = field(default=None, repr=False, compare=False)
    token_bytes: np.ndarray | None = field(default=None, repr=False, compare=False)  # by id, where they are fixed

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned type that holds every id."""
        return np.min_scalar_type(self.vocab_size - 1)

    def encode(self, text: bytes) -> np.ndarray:
        """The ids of one document, without its end token."""
        if self.backend is None:
            return np.frombuffer(text, np.uint8)
        (encoding,) = self.backend.encode_batch_fast([text.decode()], add_special_tokens=False)  # without offsets
        return np.array(encoding.ids, self.dtype)

    def encode_with_lengths(self, text: bytes) -> tuple[np.ndarray, np.ndarray]:
        """The ids of one document and the bytes that each stands for; the latter sum to the document's size.

        Where the tokenizer changes the text first (Unicode normalisation), a token stands for the original bytes that
        it covers, and what lies between two tokens belongs to the later one.
        """
        if self.backend is None:
            ids = self.encode(text)
            return ids, np.ones(len(ids), np.uint32)
        encoding = self.backend.encode(text.decode(), add_special_tokens=False)
        ids = np.array(encoding.ids, self.dtype)
        if self.token_bytes is not None:
            lengths = self.token_bytes[ids]
            if int(lengths.sum()) == len(text):
                return ids, lengths
        return ids, _covered_bytes(text.decode(), encoding.offsets)

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """The text of these ids without end tokens and ids that are no token's.

        Bytes that are not UTF-8 become the replacement character.
        """
        kept = [int(token) for token in ids if int(token) != self.end_token]
        if self.backend is None:
            return bytes(token for token in kept if token < self.vocab_size).decode(errors="replace")
        return self.backend.decode(kept, skip_special_tokens=False)

    def absent(self, vocab_size: int) -> np.ndarray:
        """The ids below `vocab_size` that no token has, in order; a model may have more ids than its tokenizer."""
        if self.backend is None:
            return np.arange(self.vocab_size, vocab_size)
        return np.setdiff1d(np.arange(vocab_size), list(self.backend.get_vocab(with_added_tokens=True).values()))

    def keeps(self, text: bytes, ids: np.ndarray) -> bool:
        """Whether decoding the ids gives the text back, apart from a leading space and Unicode normalisation."""
        if self.backend is None:
            return True
        before, after = text.decode(), self.decode(ids)
        return after == before or _plain_form(after) == _plain_form(before)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, from which `transformers` builds the same tokenizer."""
        content = json.dumps(_bytes_content()) if self.backend is None else self.backend.to_str()
        end = END if self.backend is None else self.backend.id_to_token(self.end_token)
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": end,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 10**9,
            "sparsedial_name": self.name,
        }
        store.write_atomically(folder / "tokenizer.json", content.encode())
        store.write_atomically(folder / "tokenizer_config.json", (json.dumps(settings, indent=1) + "\n").encode())


def require_ids(ids: np.ndarray, tokenizer: Tokenizer, vocab_size: int) -> None:
    """Refuse ids that a model does not have, in a text or a prompt of its tokenizer.

    Raises: UserError that says that tokenizer and model do not fit each other.
    """
    largest = int(ids.max(initial=0))
    if largest >= vocab_size:
        raise UserError(
            f"tokenizer and model do not fit each other: the tokenizer {tokenizer.name} has {tokenizer.vocab_size:,}"
            f" tokens, the model {vocab_size:,}, and the text holds token {largest:,}",
            hint="one of them belongs to another checkpoint",
        )


def _plain_form(text: str) -> str:
    return unicodedata.normalize("NFC", text).removeprefix(" ")


def _covered_bytes(text: str, offsets: list[tuple[int, int]]) -> np.ndarray:
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    widths = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF)
    byte_at = np.concatenate([[0], np.cumsum(widths)])
    ends = np.maximum.accumulate(byte_at[np.array([end for _, end in offsets], np.int64)])
    if len(ends):
        ends[-1] = byte_at[-1]
    return np.diff(ends, prepend=0).astype(np.uint32)


def byte_tokenizer() -> Tokenizer:
    """The tokenizer whose 256 ids are the byte values."""
    return Tokenizer(name="bytes", vocab_size=256, end_token=0, digest=store.digest("bytes, 0 ends a document"))


def bpe_size(setting: str) -> int | None:
    """N of the setting `bpe:N`, None for any other setting.

    Raises: UserError where N is not a whole number from `LEAST_BPE` to `MOST_BPE`.
    """
    if not setting.startswith("bpe"):
        return None
    match = re.fullmatch(r"bpe:(\d+)(k?)", setting)
    size = int(match[1]) * (1000 if match[2] else 1) if match else 0
    if not LEAST_BPE <= size <= MOST_BPE:
        raise UserError(
            f"cannot read '{setting}'",
            hint=f"write it like bpe:4096, with {LEAST_BPE} to {MOST_BPE:,} tokens",
            field="tokenizer",
        )
    return size


def named_tokenizer(setting: str) -> Tokenizer | None:
    """The tokenizer that a setting names; None for `bpe:N`, which is to be trained.

    Raises: UserError about the setting where it names none.
    """
    if setting == "bytes":
        return byte_tokenizer()
    with about("tokenizer"):
        return None if bpe_size(setting) else load_tokenizer(Path(setting).expanduser())


def train_bpe(texts: Iterable[bytes], size: int) -> Tokenizer:
    """A byte-level BPE of at most `size` tokens learnt from these texts; id 0 is the end token.

    It has fewer tokens where too few pairs of tokens occur twice in the texts.
    """
    tokenizers = _library()
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((text.decode() for text in texts), trainer)
    return _wrap(backend, name=f"bpe:{size}", end_token=0)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a `tokenizer.json` (also .gz) or of a folder that holds one, such as a checkpoint.

    Raises: UserError where it is missing, not a tokenizer, or names no token that ends a document.
    """
    found = try_load_tokenizer(path)
    if isinstance(found, Fault):
        raise found.error()
    return found


def try_load_tokenizer(path: Path) -> Tokenizer | Fault:
    """What `load_tokenizer` gives, or why it cannot.

    Raises: UserError where the package `tokenizers` is missing.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        return Fault(f"{path} has no tokenizer.json", "copy it there from where the checkpoint came from")
    content = _try_read(file)
    if isinstance(content, Fault):
        return content
    if content == _bytes_content():
        return byte_tokenizer()
    settings = _settings(file)
    if isinstance(settings, Fault):
        return settings
    library = _library()
    try:
        backend = library.Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # tokenizers raises nothing narrower
        return Fault(f"{file}: not a tokenizer ({error})")
    end_token = _end_token(backend, settings)
    if end_token is None:
        return Fault(
            f"{file}: no token that ends a document",
            f"add one of {', '.join(END_NAMES)}, or name it in tokenizer_config.json",
        )
    return _wrap(backend, name=settings.name or file.name, end_token=end_token)


def _try_read(file: Path) -> dict[str, Any] | Fault:
    try:
        data = file.read_bytes()
        content = json.loads(gzip.decompress(data) if file.suffix == ".gz" else data)
    except FileNotFoundError:
        return Fault(f"{file}: no such file", "bytes, bpe:N, or the path of a tokenizer.json")
    except (OSError, EOFError, ValueError) as error:
        return Fault(f"{file}: not readable as JSON ({error})")
    return content if isinstance(content, dict) else Fault(f"{file}: not a JSON object")


@dataclass(frozen=True)
class _Settings:
    """What we read of a `tokenizer_config.json`."""

    name: str | None = None  # that we gave it
    end: str | None = None  # the token that ends a document


def try_settings(file: Path) -> dict[str, Any] | Fault:
    """The values of the `tokenizer_config.json` beside a tokenizer's file; empty where there is none."""
    settings_file = file.with_name("tokenizer_config.json")
    return _try_read(settings_file) if settings_file.is_file() else {}


def _settings(file: Path) -> _Settings | Fault:
    values = try_settings(file)
    if isinstance(values, Fault):
        return values
    end = values.get("eos_token")
    return _Settings(values.get("sparsedial_name"), end.get("content") if isinstance(end, dict) else end)


def _end_token(backend: Any, settings: _Settings) -> int | None:
    """The id of the token that ends a document: the stated one, or the first that has a usual name."""
    ids = (backend.token_to_id(name) for name in (settings.end, *END_NAMES) if name)
    return next((int(token) for token in ids if token is not None), None)


def _wrap(backend: Any, *, name: str, end_token: int) -> Tokenizer:
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True  # a text that spells out <|endoftext|> holds those letters, not that token
    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    size = max(vocabulary.values()) + 1
    content = json.loads(backend.to_str())
    return Tokenizer(
        name=name,
        vocab_size=size,
        end_token=end_token,
        digest=store.digest({"content": content, "end_token": end_token}),
        backend=backend,
        token_bytes=_token_bytes(vocabulary, backend, size) if _is_byte_level(content) else None,
    )


def _is_byte_level(content: dict[str, Any]) -> bool:
    return (
        '"ByteLevel"' in json.dumps(content.get("pre_tokenizer")) and (content.get("model") or {}).get("type") == "BPE"
    )


def _token_bytes(vocabulary: dict[str, int], backend: Any, size: int) -> np.ndarray:
    lengths = np.zeros(size, np.uint32)
    for token, index in vocabulary.items():
        lengths[index] = len(token)  # byte-level BPE writes one letter per byte
    for index, added in backend.get_added_tokens_decoder().items():
        lengths[index] = len(added.content.encode())
    return lengths


def letter_bytes(piece: str) -> bytes:
    """The bytes that a token of byte-level BPE is written for."""
    return bytes(_letter_values()[letter] for letter in piece)


@functools.cache
def _letter_values() -> dict[str, int]:
    return {letter: value for value, letter in enumerate(_byte_letters())}


@functools.cache
def _byte_letters() -> list[str]:
    """The letter that byte-level BPE writes for each byte value: itself if printable, else one of code 256 or above."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(value if value in printable else next(others)) for value in range(256)]


def _bytes_content() -> dict[str, Any]:
    """The byte vocabulary as a tokenizer.json: byte-level BPE without a merge, whose id 0 (NUL) ends a document."""
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 0, "content": END, **special}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {END if value == 0 else letter: value for value, letter in enumerate(_byte_letters())},
            "merges": [],
        },
    }


def _library() -> Any:
    try:
        import tokenizers  # slow to import, and `bytes` does not need it
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise UserError(
            "the package 'tokenizers' is missing", hint="pip install 'sparsedial[train]', or use the tokenizer bytes"
        ) from error
    return tokenizers
