"""README.md says what the records say, and its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from benchmarks.readme import BLOCKS, LAWS, README, filled
from sparsedial.cli.arguments import read_arguments
from sparsedial.law.describe import laws_markdown
from sparsedial.verbs import VERBS

TEXT = README.read_text()


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_the_readme_is_as_its_record_has_it(block):
    pattern = rf"<!-- {block} -->\n.*?\n<!-- end -->"
    stands, wanted = (re.search(pattern, text, flags=re.S) for text in (TEXT, filled(TEXT)))
    assert stands is not None
    assert wanted is not None
    assert stands[0] == wanted[0], "run `python -m benchmarks.readme`"


def test_the_page_of_laws_is_as_the_code_has_it():
    assert LAWS.read_text() == laws_markdown(), "run `python -m benchmarks.readme`"


def test_every_file_that_the_readme_links_to_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert links
    for link in links:
        assert (README.parent / link).exists(), link


def test_every_command_in_the_readme_is_understood():
    commands = re.findall(r"^\$ sparsedial (.+)$", TEXT, flags=re.M)
    assert commands
    for command in commands:
        verb, *words = shlex.split(command)
        read_arguments(VERBS[verb], words)


def test_make_targets_in_the_readme_exist():
    makefile = (README.parent / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", TEXT)):
        assert f"\n{target}:" in makefile, target


def test_the_tour_names_every_floor():
    floors = [path.parent.name for path in Path(README.parent / "sparsedial").glob("*/__init__.py")]
    for floor in floors:
        assert f"`{floor}/`" in TEXT, floor
