"""A page on a phone: a table that is too wide shows that it scrolls, and a path breaks behind its slashes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sparsedial.showing.page import page, table
from sparsedial.showing.palette import PAGE_COLOURS

sync_api = pytest.importorskip("playwright.sync_api")
PATH = "runs/my_study/runs/8a945dab076e9b44/checkpoint"
DIGEST = "070343994f7e6e513959b73b5d910" * 2
TORN = """() => {
  const texts = document.createTreeWalker(document.querySelector("td + td"), NodeFilter.SHOW_TEXT), torn = [];
  for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    const range = document.createRange();
    range.selectNode(text);
    if (range.getClientRects().length > 1) torn.push(text.data);
  }
  return torn;
}"""


@pytest.fixture
def shown(browser) -> Iterator[Callable[[str], Any]]:
    opened = browser.new_page(viewport={"width": 360, "height": 740})

    def show(body: str) -> Any:
        opened.set_content(page("a report", body, PAGE_COLOURS))
        return opened

    yield show
    opened.close()


@pytest.mark.parametrize("value", [PATH, DIGEST])
def test_a_path_and_a_digest_fit_and_break_between_their_parts(shown, value):
    opened = shown(table(["", "sparse", "dense"], [["checkpoint", value, value]], "words"))
    assert opened.evaluate(TORN) == []
    assert opened.evaluate("document.querySelector('.wide').scrollWidth") <= 328
    assert opened.evaluate("document.querySelector('td + td').textContent") == value


def test_a_table_that_is_too_wide_has_a_shadow_where_more_of_it_is(shown):
    """It lies under a cover that scrolls with the table, so an end that is in sight has none."""
    opened = shown(table(["budget", *["a long head"] * 8], [["1e12", *["1.6903 (1.6573 to 1.7234)"] * 8]]))
    wide = "getComputedStyle(document.querySelector('.wide'))"
    assert opened.evaluate("document.querySelector('.wide').scrollWidth") > 328
    assert opened.evaluate(f"{wide}.backgroundAttachment") == "local, local, scroll, scroll"
    assert opened.evaluate(f"{wide}.backgroundImage").count("linear-gradient") == 4
