"""The dial page in a browser: turning, converting, faults at their fields, links, going back, and what is saved."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("fastapi")
sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

BUDGET = "?flops=1e21&max_total_parameters=30B&device=h100&devices=8&price=2.5"
PHONE = {"viewport": {"width": 320, "height": 800}}


WITH_SETTINGS = """
from sparsedial.showing.dial_server import serve
from sparsedial.showing.notes import note
from sparsedial.verbs.dial.questions import questions
from tests.serving.test_budget import DIAL

serve(questions("abnar", None, DIAL), 0, note)
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served("-m", "sparsedial.cli.main", "dial", "--port", "0") as found:
        yield found


@contextmanager
def served(*words: str) -> Iterator[str]:
    """The address of a page that a process of its own serves."""
    command = [sys.executable, *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as server:
        assert server.stderr is not None
        line = server.stderr.readline()
        found = next(word for word in line.split() if word.startswith("http://"))
        for _ in range(100):
            try:
                urllib.request.urlopen(found, timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield found
        server.terminate()


@pytest.fixture
def visit(browser, address):
    """Opens the page at a question; any error in its script fails the test."""
    contexts, errors = [], []

    def opened(query: str = "", **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address + query)
        expect(page.locator("#finding")).not_to_have_text("Computing…", timeout=30_000)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


def chosen(page, name: str, value: str) -> None:
    page.locator(f"select[name={name}]").select_option(value)


def in_address(page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


@pytest.mark.parametrize("options", [
    {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"},
])  # fmt: skip
def test_turning_by_keyboard_moves_every_figure_and_the_address(visit, options):
    page = visit(**options)
    before = page.locator("#loss").inner_text()
    page.locator("#dial").focus()
    page.keyboard.press("Home")
    assert page.locator("#sparsity").inner_text() == "dense"
    assert page.locator("#dial").get_attribute("aria-valuetext").startswith("dense, loss")
    assert page.locator("#loss").inner_text() != before
    page.wait_for_url("**position=0")
    assert "--sparsity 0" in page.locator("#command").inner_text()
    assert page.locator("body").evaluate("body => body.scrollWidth <= innerWidth")


def test_a_link_reproduces_the_view(visit):
    page = visit()
    page.locator("input[name=amount]").fill("3e20")
    chosen(page, "law", "ludziejewski")
    page.wait_for_url("**flops=3e20**ludziejewski**")
    page.locator("#dial").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**position=0.5")
    seen = page.locator("#figures").inner_text(), page.locator("#command").inner_text()
    again = visit(page.url.partition("?")[1] + page.url.partition("?")[2])
    assert (again.locator("#figures").inner_text(), again.locator("#command").inner_text()) == seen


def test_another_currency_keeps_the_budget(visit):
    page = visit(BUDGET)
    tile = page.locator("#money").evaluate("tile => tile.firstChild.data")
    chosen(page, "currency", "dollars")
    expect(page.locator("input[name=amount]")).to_have_value(tile.replace("$", "").replace(",", ""))
    expect(page.locator("#command")).to_contain_text("--dollars 2508")
    for currency in ("seconds", "joules", "gpu_hours", "target_loss", "flops"):
        chosen(page, "currency", currency)
        page.wait_for_url(f"**{currency}=**")
        expect(page.locator("#finding")).not_to_have_class("wrong")
    assert float(page.locator("input[name=amount]").input_value()) == pytest.approx(1e21, rel=5e-3)


def test_a_currency_that_is_not_known_says_what_is_missing(visit):
    page = visit("?flops=1e21")
    chosen(page, "currency", "dollars")
    expect(page.locator("#problem")).to_contain_text("name a “Device” first")
    assert page.locator("select[name=currency]").input_value() == "flops"
    assert page.locator("input[name=amount]").input_value() == "1e21"


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("?flops=abc&device=h100", "amount", "cannot read 'abc': write it like 1e21"),
        ("?flops=1e21&law=nosuch", "law", "no published law named 'nosuch'"),
        ("?flops=1e21&devices=x", "devices", "'x' is not a number"),
        ("?flops=1e21&memory=1", "memory", "at most 1 B of memory to train"),
        ("?flops=1e21&seconds=5d", "seconds", "“Amount (FLOPs)” and “time on the machine” contradict"),
        ("?flops=1e21&top_k=0", "top_k", "0 is below 1"),
        ("?dollars=5&device=h100", "price", "dollars need the price"),
    ],
)
def test_a_fault_stands_at_its_field_and_the_link_keeps_it(visit, query, field, says):
    page = visit(query)
    marked = page.locator(f"[name={field}]")
    expect(marked).to_have_attribute("aria-invalid", "true")
    assert marked.get_attribute("aria-describedby") == "problem"
    expect(page.locator("#problem")).to_contain_text(says)
    expect(page.locator("#finding")).to_contain_text(says)
    assert "--" not in page.locator("#answer").inner_text()
    assert in_address(page) == {name: values[0] for name, values in parse_qs(query[1:]).items()}
    assert "sparsedial plan" not in page.locator("#command").inner_text()


def test_after_a_fault_what_is_stale_is_grey_until_the_next_answer(visit):
    page = visit()
    page.locator("input[name=amount]").fill("lots")
    expect(page.locator("#finding")).to_contain_text("cannot read 'lots'")
    assert float(page.locator("#figures").evaluate("tiles => getComputedStyle(tiles).opacity")) < 0.5
    expect(page.locator("#dial")).to_be_disabled()
    assert in_address(page)["flops"] == "lots"
    for button in ("to-best", "copy-command", "save-png", "save-csv", "save-plan"):
        page.locator(f"#{button}").click()
        expect(page.locator("#message")).to_contain_text("Not now: cannot read 'lots'")
    page.locator("input[name=amount]").fill("1e20")
    expect(page.locator("#finding")).to_contain_text("The best sparsity is")
    assert page.locator("[aria-invalid]").count() == 0
    assert page.locator("#figures").evaluate("tiles => getComputedStyle(tiles).opacity") == "1"


def test_an_amount_typed_before_its_currency_is_taken_as_typed(visit):
    page = visit(BUDGET)
    page.locator("input[name=amount]").fill("2h30m")
    expect(page.locator("#problem")).to_be_visible()
    chosen(page, "currency", "seconds")
    expect(page.locator("#command")).to_contain_text("--seconds 2h30m")


def test_a_position_that_the_dial_lacks_is_said(visit):
    page = visit(BUDGET + "&position=abc")
    expect(page.locator("#linked")).to_contain_text("asks for sparsity abc")
    page = visit("?flops=1e21&flops=2e21")
    expect(page.locator("#linked")).to_contain_text("flops more than once")
    expect(page.locator("input[name=amount]")).to_have_value("2e21")


def test_back_returns_to_the_question_before(visit):
    page = visit(BUDGET)
    chosen(page, "law", "ludziejewski")
    expect(page.locator("#command")).to_contain_text("--law ludziejewski")
    page.locator("#dial").focus()
    page.keyboard.press("Home")
    page.wait_for_url("**position=0")
    page.go_back()
    expect(page.locator("#sparsity")).not_to_have_text("dense")
    page.go_back()
    expect(page.locator("#command")).to_contain_text("--law abnar")
    assert page.locator("select[name=law]").input_value() == "abnar"
    page.go_forward()
    expect(page.locator("#command")).to_contain_text("--law ludziejewski")


def test_two_laws_lie_over_each_other(visit):
    page = visit(BUDGET)
    chosen(page, "beside", "ludziejewski")
    for chart in ("#by-sparsity", "#by-budget"):
        expect(page.locator(f"{chart} svg")).to_contain_text("Ludziejewski et al. 2025 (ludziejewski)", timeout=20_000)
        assert page.locator(f"{chart} polyline").count() == 2
    assert page.evaluate("spec().lines.map(line => Math.min(...line.points.map(point => point[1])))") == [0, 0]
    assert in_address(page)["beside"] == "ludziejewski"
    assert "--law abnar" in page.locator("#command").inner_text()
    chosen(page, "beside", "abnar")
    expect(page.locator("[name=beside]")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#finding")).to_contain_text("The best sparsity is")
    chosen(page, "beside", "krajewski")
    expect(page.locator("#problem")).to_contain_text("nothing to lay over the first law: all runs of this law had")
    assert page.locator("#by-sparsity polyline").count() == 1


def test_a_law_of_one_sparsity_has_no_charts(visit):
    page = visit("?flops=1e21&law=krajewski")
    expect(page.locator("#finding")).to_contain_text("This law cannot say which sparsity is best")
    expect(page.locator("#crossing")).to_contain_text("All runs of this law had sparsity 0.9844")
    assert page.locator("svg:visible").count() == 0
    expect(page.locator("#along")).to_be_hidden()
    assert "dense" not in page.locator(".ends").inner_text()
    page.locator("#save-png").click()
    expect(page.locator("#message")).to_contain_text("No picture")


def test_on_a_phone_inputs_stand_before_charts_whose_labels_can_be_read(visit):
    page = visit(BUDGET, **PHONE)
    expect(page.locator("#by-budget svg")).to_be_visible(timeout=20_000)
    places = [page.locator(name).bounding_box()["y"] for name in ("#finding", "#f-amount", "#dial", "#by-sparsity")]
    assert places == sorted(places)
    assert places[2] < 1100
    labels = page.locator("#by-sparsity text").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).map(box => [box.left, box.right, box.top, box.height])"
    )
    assert min(height for *_, height in labels) >= 12
    assert max(right for _, right, *_ in labels) <= 320
    rows = {round(top) for _, _, top, _ in labels}
    for row in rows:  # no two labels of a line overlap
        line = sorted((left, right) for left, right, top, _ in labels if round(top) == row)
        assert all(one[1] <= other[0] for one, other in pairwise(line))
    assert page.locator("#time small").evaluate("range => range.getClientRects().length") == 1


def test_a_term_explains_itself_on_a_tap(visit):
    page = visit(**PHONE, has_touch=True)
    button = page.get_by_role("button", name="What is “Predicted loss”?")
    button.tap()
    assert button.get_attribute("aria-expanded") == "true"
    expect(page.get_by_text("in nats per token: lower is better").first).to_be_visible()
    page.keyboard.press("Escape")
    assert button.get_attribute("aria-expanded") == "false"


def test_table_plan_and_picture_are_saved(visit):
    page = visit(BUDGET, accept_downloads=True)
    for button, name in (("#save-csv", "sparsedial.csv"), ("#save-plan", "plan.json"), ("#save-png", "sparsedial.png")):
        with page.expect_download() as download:
            page.locator(button).click()
        assert download.value.suggested_filename == name
    head = download.value.path().read_bytes()[:24]
    assert struct.unpack(">II", head[16:]) == (2000, 1200)
    titled = page.evaluate(
        """() => chart({...spec(), title: shown.words, subtitle: shown.caption}, 960, 560).textContent"""
    )
    assert "The best sparsity is" in titled
    assert "Law: Abnar et al. 2025 (abnar); budget: 1e21 FLOPs" in titled


def test_every_control_has_a_name(visit):
    page = visit()
    for control in page.locator("input, select, button").all():
        label = control.evaluate("e => (e.labels?.[0]?.innerText || e.ariaLabel || e.innerText || '').trim()")
        assert label, control.evaluate("e => e.outerHTML")


@pytest.mark.parametrize("options", [{"viewport": {"width": 1280, "height": 900}}, PHONE])
def test_the_settings_of_a_checkpoint_have_a_table_and_points_beside_the_law(browser, options):
    with served("-c", WITH_SETTINGS) as found:
        page = browser.new_context(**options).new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(found + BUDGET)
        expect(page.locator("#by-setting svg")).to_be_visible(timeout=30_000)
        expect(page.locator("#settings-table tbody tr")).to_have_count(4)
        expect(page.locator("#own a")).to_be_visible()
        assert "k=1,skip=0" in page.locator("#settings-table").inner_text()
        titles = page.locator("#by-setting title").all_text_contents()
        assert {title.partition(": ")[0] for title in titles} == {"k=2", "k=1", "k=1,skip=0", "k=2,p=0.5"}
        shown = page.locator("#by-setting text").all_text_contents()
        assert {"k=2", "k=1", "k=1,skip=0"} <= set(shown), "a point's name can be read without a mouse"
        assert page.locator("#by-setting polyline").count() == 1
        expect(page.locator("#settings-note")).to_contain_text("over ten times as large or as small, and not drawn")
        assert page.locator("body").evaluate("body => body.scrollWidth <= innerWidth")
        table = page.locator(".wide:has(#settings-table)")
        shadows = table.evaluate("box => getComputedStyle(box).backgroundAttachment")
        assert shadows == "local, local, scroll, scroll", "it shows where more of a wide table is"
        assert errors == []


def test_wide_labels_at_the_ends_of_an_axis_are_not_cut_off(visit):
    drawn = visit(BUDGET).evaluate(
        """() => {
          const ticks = [1.25, 1.94].map((size) => ({ value: size * 1e6, text: `${size}M` }));
          const lines = [{ name: "", points: ticks.map((tick) => [tick.value, 4.5]), colour: "black" }];
          const svg = chart({ x: { ticks }, xLabel: "", yLabel: "", lines }, 400, 270);
          document.body.append(svg);
          const end = (text) => text.getBBox().x + text.getBBox().width;
          return [...svg.querySelectorAll("text")].map((text) => [text.textContent, end(text)]);
        }"""
    )
    assert "1.94M" in dict(drawn)
    assert max(end for _, end in drawn) <= 400


def test_a_page_without_a_checkpoint_has_no_settings(visit):
    page = visit(BUDGET)
    assert page.locator("#settings").is_hidden()
    assert page.locator("#own").is_hidden()
