"""What datatrove's filters say of small documents: `PYTHON benchmarks/quality_verdicts.py ENCYCLOPEDIA.jsonl.gz`.

PYTHON is that of an environment with datatrove, as for benchmarks/duplicates_peers.py; nothing of sparsedial is
imported. The documents are short ones of a CC0 encyclopedia, edited ones and made ones. Writes
tests/selection/quality_verdicts.json: of each document and filter why it is left out, null where it stays.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

# pyright: reportMissingImports=false
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

OUT = Path(__file__).parents[1] / "tests" / "selection" / "quality_verdicts.json"
LENGTHS = (250, 1200)  # characters of the documents
READ = 16


def made(texts: list[str]) -> list[str]:
    """Documents in the manner of web pages, good and bad."""
    one, two = texts[0], texts[1]
    lines = [sentence.strip() + "." for sentence in (one + two).split(". ") if len(sentence) > 40]
    return [
        "\n".join(lines),
        "\n".join([*lines, *lines[:4]]),
        "\n".join([lines[0]] * 6),
        "\n".join(f"- {line}" for line in lines),
        "\n".join(f"* {line}" for line in lines),
        "\n\n".join([one[:300], one[:300], two[:300]]),
        "\n".join(f"{line[:-1]}..." for line in lines),
        "\n".join(line[:25] for line in lines * 2),
        "\n".join(["Home", "About us", "Contact", "Terms of use", *lines]),
        "\n".join([*lines, "Lorem ipsum dolor sit amet and so on."]),
        "\n".join([*lines, "Here is { a bracket } in a sentence."]),
        "\n".join([*lines, "if (x) {", "}"]),
        "\n".join([*lines[:3], "You need Javascript to see this page.", "Our site uses cookies to serve you."]),
        one + " #tag" * 40,
        one[:400] + " …" * 30,
        " ".join(f"{number}." for number in range(300)) + " the end of it is with you.",
        "the cat sat " * 60 + ".",
        "Das ist ein deutscher Satz ohne ein einziges Wort der anderen Sprache hier. " * 3 + "\n".join(lines[:1]),
        "Too short a page.",
        "\n".join(f"item {number}" for number in range(80)),
    ]


def verdicts(text: str) -> dict[str, str | None]:
    """Why each filter leaves a document out; None where it stays."""
    found = {}
    for name, judge in {
        "gopher": GopherQualityFilter(),
        "gopher_repeats": GopherRepetitionFilter(),
        "c4": C4QualityFilter(filter_no_terminal_punct=True),
        "fineweb": FineWebQualityFilter(),
    }.items():
        answer = judge.filter(Document(text=text, id="0"))
        found[name] = None if answer is True else answer[1]
    return found


def main() -> None:
    """Judge all documents, and write the file."""
    with gzip.open(sys.argv[1], "rt") as stream:
        read = [text for line in stream if LENGTHS[0] < len(text := json.loads(line)["text"]) < LENGTHS[1]]
    texts = sorted(read, key=len)[-READ:]
    judged = [{"text": text, "verdicts": verdicts(text)} for text in [*texts, *made(texts)]]
    OUT.write_text(json.dumps(judged, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
