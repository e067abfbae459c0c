"""Items that stand in a text are found, whatever their case, punctuation and file format; others are not."""

from __future__ import annotations

import gzip
import json
import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars
import pytest

from sparsedial.errors import UserError
from sparsedial.text import contamination as module
from sparsedial.text import documents as documents_module
from sparsedial.text.contamination import Holders, contamination, words_of

from .conftest import prose

Write = Callable[..., Path]


def words(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices("abcdefghij", k=6)) for _ in range(count)]


ITEM = words(0, 30)  # 18 runs of 13 words
FILLER = prose(1, 5)


def shares(items: list[str], text: str | bytes, folder_of: Write, name: str = "a.txt") -> tuple[float | None, ...]:
    return contamination(items, [str(folder_of({name: text}) / name)]).shares


def planted(part: str) -> str:
    return f"{FILLER}\n\nSome words before, {part} and some after.\n\n{FILLER}"


@pytest.mark.parametrize(
    ("part", "share"),
    [
        (ITEM, 1.0),
        (ITEM[:15], 3 / 18),
        (ITEM[15:], 3 / 18),
        (ITEM[:13], 1 / 18),
        (ITEM[:12], 0.0),
        ([*ITEM[:12], "other", *ITEM[13:24]], 0.0),
        ([*ITEM[:20], *ITEM[21:]], 8 / 18),
        ([], 0.0),
    ],
    ids=["all", "first half", "second half", "13 words", "12 words", "12 and 11 words", "one word missing", "nothing"],
)
def test_the_share_of_an_item_is_that_of_its_runs_of_13_words(part: list[str], share: float, folder_of: Write) -> None:
    other = " ".join(words(7, 40))
    assert shares([" ".join(ITEM), other], planted(" ".join(part)), folder_of) == (pytest.approx(share), 0.0)


@pytest.mark.parametrize(
    "written",
    [
        " ".join(ITEM).upper(),
        "\n".join(ITEM),
        ", ".join(ITEM),
        "-".join(ITEM),
        "_".join(ITEM),
        "**" + "** – «".join(ITEM) + "»",
        "".join(chr(ord(letter) + 0xFEE0) if letter.isalpha() else letter for letter in " ".join(ITEM)),
    ],
    ids=["upper case", "lines", "commas", "hyphens", "underscores", "markup", "full-width letters"],
)
def test_case_punctuation_and_unicode_forms_make_no_difference(written: str, folder_of: Write) -> None:
    assert shares([" ".join(ITEM)], planted(written), folder_of) == (1.0,)


def test_words_are_compared_in_one_form_of_unicode() -> None:
    found = words_of("Ｅ\u0301té, STRASSE_ﬁn x²")
    assert found == words_of("été Straße fin x2") == [word.encode() for word in ("été", "strasse", "fin", "x2")]


def test_words_are_runs_of_letters_and_digits_whatever_the_character() -> None:
    characters = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    for text in ("a".join(characters), " ".join(characters), "".join(characters[:0x80]), "_a_\x1c\u2028b\xa0c—d’e"):
        plain = unicodedata.normalize("NFKC", text).casefold()
        assert words_of(text) == [word.encode() for word in re.findall(r"[^\W_]+", plain)]


@pytest.mark.parametrize("count", [8, 9, 12])
def test_a_short_item_is_one_run_of_all_its_words(count: int, folder_of: Write) -> None:
    item = " ".join(ITEM[:count])
    assert shares([item], planted(item), folder_of) == (1.0,)
    assert shares([item], planted(" ".join(ITEM[: count - 1])), folder_of) == (0.0,)


def test_an_item_of_less_than_8_words_is_not_judged(folder_of: Write) -> None:
    items = [" ".join(ITEM[:7]), "", " ".join(ITEM), " ".join(words(3, 20))]
    found = contamination(items, [str(folder_of({"a.txt": planted(" ".join(ITEM))}))])
    assert found.shares == (None, None, 1.0, 0.0)
    assert (found.touched, found.not_judged) == (1, 2)


def test_equal_items_are_touched_alike_and_no_items_are_no_error(folder_of: Write) -> None:
    item = " ".join(ITEM)
    assert shares([item, item], planted(item), folder_of) == (1.0, 1.0)
    assert shares([], planted(item), folder_of) == ()


def test_a_run_does_not_cross_from_one_document_into_the_next(folder_of: Write) -> None:
    halves = [" ".join(ITEM[:7]), " ".join(ITEM[7:13])]
    item = " ".join(ITEM[:13])
    lines = "\n".join(json.dumps({"text": half}) for half in halves)
    assert shares([item], lines, folder_of, "two.jsonl") == (0.0,)
    assert shares([item], json.dumps({"text": "\n".join(halves)}), folder_of, "one.jsonl") == (1.0,)


def test_a_run_is_found_across_blocks_of_words_and_parts_of_a_document(
    folder_of: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_WORDS", 20)
    monkeypatch.setattr(documents_module, "PART_BYTES", 500)
    text = " ".join(words(5, 3000))
    items = [" ".join(text.split()[start : start + 13]) for start in range(2988)]
    assert shares(items, text, folder_of) == (1.0,) * len(items)


def in_formats() -> dict[str, tuple[str, bytes]]:
    """A text with the item in files of every format but Parquet, each with its name."""
    texts = [FILLER, planted(" ".join(ITEM))]
    rows: list[dict[str, Any]] = [{"id": number, "text": text} for number, text in enumerate(texts)]
    lines = "\n".join(map(json.dumps, rows)).encode()
    return {
        "plain": ("a.txt", texts[1].encode()),
        "packed": ("a.md.gz", gzip.compress(texts[1].encode())),
        "UTF-16": ("a.txt", texts[1].encode("utf-16")),
        "JSON lines": ("a.jsonl", lines),
        "packed JSON lines": ("a.jsonl.gz", gzip.compress(lines)),
        "JSON": ("a.json", json.dumps(rows).encode()),
        "CSV": ("a.csv", polars.DataFrame(rows).write_csv().encode()),
    }


@pytest.mark.parametrize("written", in_formats())
def test_every_format_of_text_is_looked_through(written: str, folder_of: Write) -> None:
    name, data = in_formats()[written]
    assert shares([" ".join(ITEM)], data, folder_of, name) == (1.0,)


def test_parquet_is_looked_through(tmp_path: Path) -> None:
    polars.DataFrame({"text": [FILLER, " ".join(ITEM)]}).write_parquet(tmp_path / "a.parquet")
    assert contamination([" ".join(ITEM)], [str(tmp_path / "a.parquet")]).shares == (1.0,)


def test_lines_that_are_not_text_are_counted_and_an_empty_text_is_refused(folder_of: Write, tmp_path: Path) -> None:
    data = b"\n".join([b"a line"] * 300) + b"\n\xff\n" + " ".join(ITEM).encode()
    found = contamination([" ".join(ITEM)], [str(folder_of({"a.txt": data}))])
    assert (found.shares, found.skipped.lines) == ((1.0,), 1)
    with pytest.raises(UserError, match=r"against: .*blank\.txt: no text"):
        contamination([" ".join(ITEM)], [str(folder_of({"blank.txt": " \n"}, "blank") / "blank.txt")])
    with pytest.raises(UserError, match="no such file"):
        contamination([" ".join(ITEM)], [str(tmp_path / "missing.txt")])


def strings_of(value: Any) -> Iterator[str]:
    """All texts in an item's row, one by one."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings_of(inner)


def every(path: Path, step: int) -> list[str]:
    """Some rows of a file, with a word between their texts that no other text has: runs across them say nothing."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [" qqqqqqqq ".join(strings_of(json.loads(line))) for line in list(lines)[::step]]


def test_held_out_items_are_not_in_the_training_text_beside_the_checkout(shared_data: Path) -> None:
    """As that text's README says. The passages of BoolQ's train split are in the encyclopedia, so those are found."""
    held_out = [path for path in sorted((shared_data / "eval").rglob("*.jsonl.gz")) if "train" not in path.name]
    items = [item for path in held_out for item in every(path, 20)]
    known = every(shared_data / "eval" / "boolq" / "train.jsonl.gz", 20)
    found = contamination(items + known, [str(shared_data / "text" / "encyclopedia" / "train.jsonl.gz")])
    assert len(items) > 2000
    assert not any(found.shares[: len(items)])
    assert sum(bool(share) for share in found.shares[len(items) :]) > len(known) / 2


def test_a_document_names_the_items_that_it_holds_a_run_of() -> None:
    short, mid = " ".join(ITEM[:7]), " ".join(words(3, 9))
    items = {"one": [" ".join(words(5, 20)), " ".join(ITEM), short], "two": [" ".join(ITEM[10:]), mid]}
    holders = Holders(items)
    assert holders.judged == {"one": 2, "two": 2}
    cases = [
        (ITEM[:13], {("one", 1)}),
        (ITEM[10:23], {("one", 1), ("two", 0)}),
        (ITEM[:12], set()),
        (words(3, 9), {("two", 1)}),
        (words(3, 8), set()),
        ([], set()),
    ]
    for part, held in cases:
        assert holders.held_by(planted(" ".join(part).upper()).encode()) == held
    assert holders.held_by(b"few words") == set()
    assert Holders({}).held_by(planted(" ".join(ITEM)).encode()) == set()
