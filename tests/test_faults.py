"""The planted faults can be planted; `make faults` sees whether tests find them."""

from __future__ import annotations

from pathlib import Path

from tests.faults.planted import FAULTS

ROOT = Path(__file__).parents[1]


def test_each_line_that_is_changed_stands_once_in_its_file():
    times = {fault.what: (ROOT / "sparsedial" / fault.file).read_text().count(fault.line) for fault in FAULTS}
    assert {what: count for what, count in times.items() if count != 1} == {}


def test_the_tests_that_must_find_them_are_there():
    files = {fault.tests.split("::")[0] for fault in FAULTS}
    assert [file for file in sorted(files) if not (ROOT / file).exists()] == []
