"""A table's file as columns: separated values, JSON lines, JSON or Parquet, also packed by gzip; a study, or runs."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from sparsedial.errors import UserError
from sparsedial.law.entries import entries
from sparsedial.law.folders import run_rows, study_rows
from sparsedial.records.kinds import kind_of
from sparsedial.records.study import STUDY_FILE

Columns = dict[str, np.ndarray]
SEPARATORS = (",", ";", "\t", "|")
LINES_TO_TELL = 20  # of which the separator is told
KINDS = "a .csv, .tsv, .jsonl or .json (also .gz) or a .parquet file"


def is_ours(path: Path) -> bool:
    """Whether a path is a folder of runs or a study, whatever its file is called."""
    if path.is_dir() or path.name == STUDY_FILE:
        return True
    return path.suffix.lower() not in READERS.keys() - {".json"} and kind_of(path) == "study"


def read_columns(path: Path) -> Columns:
    """Every column of a table as floats (NaN where there is no finite number), or else as words.

    A study (its folder or `study.json`) gives its finished cells, a folder of runs its finished runs.

    Raises: UserError for a missing, unreadable or unknown file.
    """
    import polars

    if (path / STUDY_FILE).exists():
        path = path / STUDY_FILE
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        return _of_rows(run_rows(path))
    kind = (path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix).lower()
    if is_ours(path):
        return _of_rows(study_rows(path))
    if kind not in READERS:
        raise UserError(f"{path}: unknown kind of table", hint=f"give the folder of a study or of runs, or {KINDS}")
    try:
        return READERS[kind](_unpacked(path.read_bytes()))
    except polars.exceptions.NoDataError:
        return {}
    except (OSError, EOFError, ValueError, RecursionError, zlib.error, polars.exceptions.PolarsError) as error:
        raise UserError(f"{path}: not readable as a table ({' '.join(str(error).split())[:120]})") from error
    except _Doubled as error:
        raise UserError(
            f"{path}: two columns are named '{error}'", hint="rename one, so that it is clear which"
        ) from error


class _Doubled(Exception):
    """A name that two columns share."""


def _unpacked(content: bytes) -> bytes:
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def _text(content: bytes) -> str:
    """As UTF-8, or as UTF-16 with its mark, which Excel writes; a mark itself is no part of the first name."""
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if marked else "utf-8-sig")


def _separated(content: bytes) -> Columns:
    import polars

    text = _text(content)
    separator = _separator(text)
    # All as words: a column of numbers with a word is told apart in `entries`, not by the first rows.
    frame = polars.read_csv(io.BytesIO(text.encode()), separator=separator, infer_schema_length=0)
    frame = frame.filter(~polars.all_horizontal(polars.all().is_null()))  # empty lines
    return _of_frame(frame, decimal_comma=separator != ",")


def _separator(text: str) -> str:
    """The separator that splits the first lines into the most fields, equally many on each; else a comma."""
    first = list(itertools.islice(filter(str.strip, io.StringIO(text)), LINES_TO_TELL))

    def fields(separator: str) -> int:
        try:
            counts = {len(row) for row in csv.reader(first, delimiter=separator)}
        except csv.Error:  # an entry of more than 128 KiB
            return 0
        return counts.pop() if len(counts) == 1 and counts != {1} else 0

    return max(SEPARATORS, key=fields)


def _of_frame(frame: Any, decimal_comma: bool = False) -> Columns:
    found: Columns = {}
    for column in frame.get_columns():
        name = column.name.strip()
        first, again, _ = name.partition("_duplicated_")  # as polars renames the second of two columns of one name
        if name in found or (again and first in frame.columns):
            raise _Doubled(first)
        found[name] = entries(column, decimal_comma)
    return found


def _parquet(content: bytes) -> Columns:
    import polars

    return _of_frame(polars.read_parquet(io.BytesIO(content)))


def _json_lines(content: bytes) -> Columns:
    """One object a line; also with NaN and Infinity, which Python's `json` writes and the standard does not know."""
    rows = []
    lines = io.StringIO(_text(content), newline=None)  # `splitlines` would cut within words, at U+2028
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    return _of_rows(rows)


def _json(content: bytes) -> Columns:
    """A list of objects, or an object of lists."""
    found = json.loads(_text(content))
    if isinstance(found, dict) and found and all(isinstance(column, list) for column in found.values()):
        columns = cast("dict[str, list[object]]", found)
        found = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if not isinstance(found, list):
        raise ValueError("neither a list of objects nor an object of lists")
    return _of_rows(cast("list[Any]", found))


def _of_rows(rows: Sequence[Any]) -> Columns:
    """Columns of objects, whose inner objects give columns like `config.lr`."""
    import polars

    flat = [_flat(row) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    return {name: entries(polars.Series([row.get(name) for row in flat], dtype=polars.String)) for name in names}


def _flat(row: object, under: str = "") -> dict[str, str | None]:
    if not isinstance(row, Mapping):
        raise ValueError(f"'{str(row)[:20]}' is not an object of names and values")
    found: dict[str, str | None] = {}
    for name, value in cast("Mapping[str, object]", row).items():
        if isinstance(value, Mapping):
            found |= _flat(cast("object", value), f"{under}{name}.")
        else:
            found[f"{under}{name}".strip()] = None if value is None else str(value)
    return found


READERS: Mapping[str, Callable[[bytes], Columns]] = {
    ".csv": _separated,
    ".tsv": _separated,
    ".tab": _separated,
    ".txt": _separated,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
}
