"""Files that hold several texts, one reader for each format, and formats that are not read as text."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sparsedial.errors import UserError
from sparsedial.text.bad_lines import FileLines, checked, not_utf8
from sparsedial.text.files import blocks_of, is_packed, lines_of, opened_text, suffix_of
from sparsedial.text.signals import signals_held

COLUMN = "text"
LEAVE_OUT = "leave it out"
QUOTES = "a text that begins with a quote stands in quotes, and each quote in it is doubled"
WHOLE_BYTES = 2**30  # the most that is read of a .json file that is one value
ROWS = 2**15  # of a Parquet file that are held at once
SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class Piece:
    """A text of a file; its name ends in the tail."""

    tail: str  # ":12" for line, entry or row 12; empty where the file is one text
    text: bytes


@dataclass(frozen=True)
class Torn:
    """What stands in the place of a row that is none: a quote that is not closed takes many lines with it."""

    error: csv.Error
    lines: int


def json_lines(path: Path, lines: FileLines) -> Iterator[Piece]:
    """One JSON object a line, with its text in the field `text`."""
    for number, line in enumerate(lines_of(path), start=1):
        if line.strip():
            yield from _piece(lambda where, line=line: _from_json(line, where), path, "line", number, lines)


def json_file(path: Path, lines: FileLines) -> Iterator[Piece]:
    """JSON lines; or one value: a list of objects that hold a text each, or one such object."""
    first = next((line for line in lines_of(path) if line.strip()), b"")
    value = None if _is_object(first) else _whole(path)
    if value is None:
        yield from json_lines(path, lines)
    elif isinstance(value, list):
        for number, entry in enumerate(value, start=1):
            yield from _piece(lambda where, entry=entry: _text_of(entry, where), path, "entry", number, lines)
    else:
        lines.read += 1
        yield Piece("", _text_of(value, str(path)))


def _is_object(line: bytes) -> bool:
    """Whether a line is a JSON object by itself."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _whole(path: Path) -> list[Any] | dict[str, Any] | None:
    """The file's one value; None where it is not one."""
    read, held = 0, []
    for block in blocks_of(path):
        read += len(block)
        if read > WHOLE_BYTES:
            return None
        held.append(block)
    try:
        value = json.loads(b"".join(held))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list | dict) else None


def _piece(read: Callable[[str], bytes], path: Path, unit: str, number: int, lines: FileLines) -> Iterator[Piece]:
    """The text of one line, entry or row; nothing where it is bad."""
    lines.read += 1
    try:
        text = read(f"{path}, {unit} {number}")
    except UserError as error:
        lines.skip(error)
    else:
        yield Piece(f":{number}", text)


class _Texted(msgspec.Struct):
    """A JSON object with a text; its other fields are skipped."""

    text: str


_DECODER = msgspec.json.Decoder(_Texted)


def _from_json(line: bytes, where: str) -> bytes:
    with contextlib.suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
        return _without_nul(_DECODER.decode(line).text.encode(), where)
    return _from_any_json(line, where)


def _without_nul(text: bytes, where: str) -> bytes:
    return checked(text, where, hint=LEAVE_OUT) if b"\0" in text else text


def _from_any_json(line: bytes, where: str) -> bytes:
    """The same by Python's own reader: it takes what the fast one refuses, such as NaN, and says what is wrong."""
    try:
        record = json.loads(line)
    except UnicodeDecodeError as error:
        raise not_utf8(line, error, where) from error
    except RecursionError as error:
        raise UserError(f"{where}: nested too deeply to be read", hint=LEAVE_OUT) from error
    except json.JSONDecodeError as error:
        problem = f"{where}: not JSON ({error.msg} at character {error.pos})"
        raise UserError(problem, hint="such a file holds one JSON object per line") from error
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error})", hint=LEAVE_OUT) from error
    return _text_of(record, where)


def _text_of(record: Any, where: str) -> bytes:
    """The field `text` of a JSON object."""
    text = record.get(COLUMN) if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise UserError(f"{where}: no field '{COLUMN}' with a string", hint='each line is like {"text": "…"}')
    try:
        return checked(text.encode(), where, hint=LEAVE_OUT)
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: character {error.start} of '{COLUMN}' is half of a surrogate pair") from error


def table(path: Path, lines: FileLines) -> Iterator[Piece]:
    """Rows of a CSV file whose first row names the columns; the separator is a comma, a semicolon or a tab."""
    csv.field_size_limit(sys.maxsize)  # of the process; 128 KiB would be too little for a document
    separator, at = _header(path)
    with opened_text(path) as stream:
        rows = csv.reader(stream, delimiter=separator, strict=True)
        next(rows)
        for number, row in enumerate(_rows(rows), start=1):
            if isinstance(row, Torn):
                lines.lose(row.lines - 1)
            yield from _piece(lambda where, row=row: _cell(row, at, where), path, "row", number, lines)


def _header(path: Path) -> tuple[str, int]:
    """The separator, and the place of the column of texts."""
    with opened_text(path) as stream:
        first = stream.readline()
    for separator in SEPARATORS:
        names = next(_rows(csv.reader([first], delimiter=separator)), [])
        if isinstance(names, list) and COLUMN in (cleaned := [name.strip().lower() for name in names]):
            return separator, cleaned.index(COLUMN)
    raise UserError(
        f"{path}: no column '{COLUMN}' among {first.strip()[:100]!r}",
        hint=f"a table's text is read from the column '{COLUMN}'; its first row names the columns",
    )


def _rows(reader: Any) -> Iterator[list[str] | Torn]:
    """The rows of a reader of CSV, with an error in the place of each that is not one; empty ones are left out."""
    while True:
        before = reader.line_num
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Torn(error, reader.line_num - before)
        else:
            if row:
                yield row


def _cell(row: list[str] | Torn, at: int, where: str) -> bytes:
    if isinstance(row, Torn):
        raise UserError(f"{where}: not CSV ({row.error})", hint=QUOTES) from row.error
    if at >= len(row):
        raise UserError(f"{where}: {len(row)} columns, so '{COLUMN}' is missing")
    return checked(row[at].encode("utf-8", "surrogateescape"), where, hint=LEAVE_OUT)


def parquet(path: Path, lines: FileLines) -> Iterator[Piece]:
    """Rows of a Parquet file."""
    if is_packed(path):
        raise UserError(f"{path}: a packed Parquet file is not read", hint="unpack it")
    next(blocks_of(path))  # a file that is missing or unreadable is named in our words
    first = 0
    while texts := _texts(path, first):
        for number, text in enumerate(texts, start=first + 1):
            yield from _piece(lambda where, text=text: _text_of({COLUMN: text}, where), path, "row", number, lines)
        first += len(texts)


def _texts(path: Path, first: int) -> list[str | None]:
    """Some rows of the column of texts, from this one on."""
    with signals_held():
        import polars  # slow to import

        try:
            file = polars.scan_parquet(path)
            kind = file.collect_schema().get(COLUMN)
            if kind == polars.String:
                return file.select(COLUMN).slice(first, ROWS).collect()[COLUMN].to_list()
        except (OSError, polars.exceptions.PolarsError) as error:
            raise UserError(f"{path}: not readable as Parquet ({error})") from error
    raise UserError(
        f"{path}: " + (f"no column '{COLUMN}'" if kind is None else f"its column '{COLUMN}' is {kind}, not String"),
        hint=f"a table's text is read from the column '{COLUMN}'",
    )


def refuse_other_formats(path: Path) -> None:
    """Raises: UserError for a file whose ending names a format that is not plain text."""
    hint = REFUSED.get(suffix_of(path))
    if hint is not None:
        raise UserError(f"{path}: {suffix_of(path)} files are not read as text", hint=hint)


Reader = Callable[[Path, FileLines], Iterator[Piece]]
READERS: dict[str, Reader] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".jl": json_lines,
    ".json": json_file,
    ".csv": table,
    ".tsv": table,
    ".parquet": parquet,
}
TAGS = "take the text out of it first; to learn from its tags as well, add .txt to its name"
DOCUMENT = "save its text as a .txt file first"
PACKED = "unpack it first; of packed files only .gz is read"
ROWS_ELSEWHERE = "save its text as JSON lines, CSV or Parquet first"
REFUSED = {
    **dict.fromkeys((".html", ".htm", ".xhtml", ".xml"), TAGS),
    **dict.fromkeys((".pdf", ".doc", ".docx", ".odt", ".rtf", ".epub"), DOCUMENT),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"), PACKED),
    **dict.fromkeys((".arrow", ".feather", ".avro", ".orc", ".xls", ".xlsx", ".ods", ".sqlite"), ROWS_ELSEWHERE),
}
