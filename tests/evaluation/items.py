"""Made-up items in the layout of a folder of data, and small checkpoints to ask them."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

from sparsedial.model.checkpoint import save_checkpoint
from sparsedial.model.transformer import initialise
from sparsedial.shape.ladder import Ladder
from sparsedial.text.tokenizer import byte_tokenizer

WORDS = ("stone", "river", "moon", "salt", "iron", "leaf")
ITEMS = 12
PASSAGES = ("The river is wide.", "Salt is white.", "The moon has no air. " * 40)


def write_checkpoint(folder: Path, seed: int = 0, context: int = 256) -> str:
    """An untrained sparse model with the tokenizer `bytes`."""
    model = initialise(Ladder(vocab_size=256, context=context).shape(16, 8), seed).eval()
    save_checkpoint(model, folder, byte_tokenizer())
    return str(folder)


def write_items(folder: Path) -> Path:
    """Items of ARC easy, BoolQ, GSM8K and LAMBADA; BoolQ's third passage fits no context of 600 bytes."""
    draw = random.Random(0)
    easy = [
        {"id": f"{number}", "question": f"Which is {number}?", "choices": draw.sample(WORDS, 4), "answer": number % 4}
        for number in range(ITEMS)
    ]
    reading = [
        {"question": "is it so", "title": "t", "passage": PASSAGES[number % 3], "answer": bool(number % 2)}
        for number in range(ITEMS)
    ]
    sums = [{"question": f"What is {number} and 1?", "answer": f"#### {number + 1}"} for number in range(ITEMS)]
    last = [{"text": f"The {draw.choice(WORDS)} lies beside the {draw.choice(WORDS)}"} for _ in range(ITEMS)]
    for split in ("train", "validation", "test"):
        _write(folder / "arc_easy" / f"{split}.jsonl.gz", easy)
        _write(folder / "boolq" / f"{split}.jsonl.gz", reading)
        _write(folder / "gsm8k" / f"{split}.jsonl.gz", sums)
    _write(folder / "lambada" / "test_openai.jsonl.gz", last)
    return folder


def _write(file: Path, rows: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, "wt") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
