"""Small tokenizers of SentencePiece's kind, with either of the two decoders that published ones have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = ("▁the", "▁cat", "▁sat", "▁on", "a", "▁mat")
SPECIAL = ("<unk>", "<s>", "</s>", "<|eot|>")
KINDS = ("metaspace", "sequence")


def tokenizer_content(kind: str, **changes: Any) -> dict[str, Any]:
    """A tokenizer.json: words, letters, and the 256 byte values for everything else."""
    merges = [(word[:end], word[end]) for word in WORDS for end in range(1, len(word))]
    letters = sorted({letter for word in WORDS for letter in word} | set("bdfg.,?!"))
    tokens = [*SPECIAL, *(f"<0x{value:02X}>" for value in range(256)), *letters, *(a + b for a, b in merges)]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    prepend = {"type": "Prepend", "prepend": "▁"}
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    sequence = {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]}
    parts = {
        "metaspace": {"normalizer": None, "pre_tokenizer": metaspace, "decoder": metaspace},
        "sequence": {
            "normalizer": {"type": "Sequence", "normalizers": [prepend, spaces]},
            "pre_tokenizer": None,
            "decoder": sequence,
        },
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": name, **added} for number, name in enumerate(SPECIAL)],
        "post_processor": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(dict.fromkeys(tokens))},
            "merges": [list(pair) for pair in merges],
        },
        **parts[kind],
        **changes,
    }


def puts_first(token: str, number: int) -> dict[str, Any]:
    """A post-processor that puts a special token before a prompt."""
    one = {"SpecialToken": {"id": token, "type_id": 0}}
    text = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    special = {token: {"id": token, "ids": [number], "tokens": [token]}}
    return {"type": "TemplateProcessing", "single": [one, text[0]], "pair": text, "special_tokens": special}


def write_tokenizer(
    folder: Path, kind: str = "sequence", settings: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """The files of a tokenizer in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_content(kind, **changes)))
    named = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({**named, **(settings or {})}))
    return folder
