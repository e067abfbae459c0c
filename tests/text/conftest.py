"""Small texts that look like text, made anew for each test session."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsedial.text.prepare import Text, prepare

WORDS = ("loss", "sparse", "model", "data", "experts", "share", "what", "they", "know", "token", "été", "文")


def prose(seed: int, paragraphs: int) -> str:
    """Paragraphs of made-up sentences; two seeds share words but hardly a line."""
    draw = random.Random(seed)
    return "\n\n".join(
        " ".join(draw.choice(WORDS) + str(draw.randrange(1000)) for _ in range(draw.randrange(10, 40))) + "."
        for _ in range(paragraphs)
    )


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of documents, each given by its name and text."""

    def write(texts: dict[str, str | bytes], name: str = "corpus") -> Path:
        for file, text in texts.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode() if isinstance(text, str) else text)
        return tmp_path / name

    return write


@pytest.fixture
def many(folder_of: Callable[..., Path]) -> Path:
    """Sixty documents of about two kilobytes."""
    return folder_of({f"part{number % 3}/{number:02}.txt": prose(number, 15) for number in range(60)})


@pytest.fixture(scope="session", params=["bytes", "bpe:300"])
def text(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Text:
    """A book, prepared."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "book.txt").write_text(prose(5, 300))
    return prepare((str(folder / "book.txt"),), tokenizer=request.param, folder=folder / "text")
