"""README.md and docs/planning.md say what the records and runs say, and their commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from benchmarks.laws_page import laws_markdown
from benchmarks.readme import DIAL, LAWS, PAGES, README, filled
from sparsedial.cli.arguments import read_arguments
from sparsedial.verbs import VERBS

TEXT = README.read_text()
DOCS = sorted((README.parent / "docs").glob("*.md"))
EVERY_PAGE = pytest.mark.parametrize("page", [README, *DOCS], ids=lambda page: page.name)


@pytest.mark.parametrize(
    ("page", "block"),
    [(page, block) for page, blocks in PAGES.items() for block in blocks],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_block_of_a_page_is_as_its_record_or_run_has_it(page, block):
    pattern, whole = rf"<!-- {block} -->\n.*?\n<!-- end -->", page.read_text()
    now = filled(whole, {block: PAGES[page][block]})
    stands, wanted = (re.search(pattern, text, flags=re.S) for text in (whole, now))
    assert stands is not None
    assert wanted is not None
    assert stands[0] == wanted[0], "run `python -m benchmarks.readme`"


def test_the_page_of_laws_is_as_the_code_has_it():
    assert LAWS.read_text() == laws_markdown(), "run `python -m benchmarks.readme`"


@EVERY_PAGE
def test_every_file_that_a_page_links_to_is_there(page):
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]+)?\)", page.read_text()):
        assert (page.parent / link).exists(), link


def commands_of(page: Path) -> list[list[str]]:
    """The words of every command of ours that a page shows."""
    whole = page.read_text().replace("\\\n", " ")  # a command may go on in the next line
    shown = re.findall(r"^\$ sparsedial (.+)$", whole, flags=re.M)
    return [shlex.split(command, comments=True) for command in shown]


@EVERY_PAGE
def test_every_command_of_a_page_is_understood(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```yaml\n# model.yaml\n(.*?)```", DIAL.read_text(), flags=re.S)
    Path("model.yaml").write_text(block)
    assert commands_of(page) or page != README
    for verb, *words in commands_of(page):
        read_arguments(VERBS[verb], words)


@EVERY_PAGE
def test_no_command_of_a_page_writes_where_one_before_it_has_written(page):
    """Typed in their order, after those of the README: `prune` and `select` refuse a folder that holds something."""
    taken: set[str] = set()
    for verb, *words in [*(commands_of(README) if page != README else []), *commands_of(page)]:
        out = next((words[at + 1] for at, word in enumerate(words) if word == "--out"), None)
        if out and "--dry-run" not in words:
            assert verb not in ("prune", "select") or out not in taken, out
            taken.add(out)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@EVERY_PAGE
def test_every_heading_that_a_page_links_to_is_there(page):
    for link, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        target = page.parent / link if link else page
        headings = re.findall(r"^#+ (.+)$", target.read_text(), flags=re.M)
        assert anchor in map(slug, headings), f"{link}#{anchor}"


def test_make_targets_in_the_readme_exist():
    makefile = (README.parent / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", TEXT)):
        assert f"\n{target}:" in makefile, target


def test_the_tour_names_every_floor():
    floors = [path.parent.name for path in Path(README.parent / "sparsedial").glob("*/__init__.py")]
    for floor in floors:
        assert f"`{floor}/`" in TEXT, floor
