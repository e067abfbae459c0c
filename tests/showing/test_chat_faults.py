"""The chat page in unusual places: faults, keys, checkpoints that cannot chat, hostile text, narrow screens."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("playwright.sync_api")
from playwright.sync_api import expect

from sparsedial.showing.chat_page import assets
from tests.showing.chatting import PHONE, SKY, ended, turn_to, write
from tests.showing.fake_models import MODELS


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (
            {"refuse": (503, {"message": "the server has no room\nask again later"})},
            "The server has no room: ask again later.",
        ),
        ({"refuse": (500, {})}, "The server answered with status 500."),
        ({"fails": "top_k=0 is below 1"}, "top_k=0 is below 1."),
        ({"breaks": 3}, "The answer broke off: the server ended it early."),
    ],
)
def test_a_fault_is_one_line_with_a_way_on(chat, fake, fault, says):
    vars(fake).update(fault)
    page = chat()
    write(page, "Why?")
    expect(page.locator(".answer .problem span")).to_have_text(says)
    assert page.locator("#said").inner_text() == says
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".answer .text")).to_have_text(SKY)
    expect(page.locator(".answer .problem")).to_be_hidden()
    expect(page.locator(".answer")).to_have_count(1)


def test_a_server_that_is_gone_is_said(chat):
    page = chat()
    expect(page.locator(".stop")).to_have_count(4)
    page.context.set_offline(True)
    write(page, "Why?")
    expect(page.locator(".answer .problem")).to_contain_text("The server does not answer. Does it still run?")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".answer .text")).to_have_text(SKY)


def test_a_key_is_asked_for_once_and_kept_in_the_tab(chat, fake):
    fake.key = "secret"
    page = chat()
    key = page.get_by_label("This server wants an API key.")
    key.fill("wrong")
    key.press("Enter")
    again = page.get_by_label("The server does not accept this API key.")
    again.fill("secret")
    page.get_by_role("button", name="Use this key").click()
    write(page, "Why?")
    expect(page.locator(".answer .text")).to_have_text(SKY)
    page.reload()
    expect(page.locator(".stop")).to_have_count(4)
    expect(page.locator("#key")).to_be_hidden()
    fake.key = "another"
    write(page, "Why?")
    again.fill("another")
    again.press("Enter")
    expect(page.locator(".answer .text")).to_have_text(SKY)


def test_a_checkpoint_without_a_chat_template_continues_the_text(chat, fake):
    fake.template = False
    page = chat()
    write(page, "Once upon")
    ended(page, 1)
    assert page.locator(".answer .text").inner_text() == f"Once upon{SKY}"
    assert fake.asked[0]["prompt"] == "Once upon"
    expect(page.get_by_role("button", name="New text")).to_be_visible()
    assert page.locator("#message").get_attribute("placeholder") == "Begin a text to continue"
    turn_to(page, "neurons=0.5")
    page.locator(".ask-again").click()
    ended(page, 2)
    assert fake.asked[1]["prompt"] == "Once upon"


def test_a_server_may_say_at_first_that_the_checkpoint_cannot_chat(chat, fake, monkeypatch):
    monkeypatch.setattr("tests.showing.fake_models.MODELS", [{**one, "chat": False} for one in MODELS])
    page = chat()
    expect(page.locator("#plain")).to_be_visible()
    page.get_by_role("button", name="Once upon a time there was").click()
    ended(page, 1)
    assert fake.asked[0]["prompt"] == "Once upon a time there was"


def test_text_of_the_model_and_of_the_user_is_text(chat, fake):
    fake.text["default"] = evil = "<img src=x onerror=alert(1)><b>bold</b>&amp; <script>alert(1)</script>"
    page = chat()
    write(page, "<i>Why?</i>")
    expect(page.locator(".answer .text")).to_have_text(evil)
    expect(page.locator(".message")).to_have_text("<i>Why?</i>")
    assert page.locator("#talk :is(img, script, i, .text b)").count() == 0


def test_temperature_and_tokens_are_sent_and_wrong_ones_are_not(chat, fake):
    page = chat()
    page.locator("#more summary").click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Tokens of an answer").fill("12")
    expect(page.locator("#chosen")).to_have_text("temperature 0, at most 12 tokens")
    write(page, "Why?")
    ended(page, 1)
    assert (fake.asked[0]["temperature"], fake.asked[0]["max_tokens"]) == (0, 12)
    page.get_by_label("Tokens of an answer").fill("0")
    page.locator("#more summary").click()
    write(page, "Why?")
    expect(page.get_by_label("Tokens of an answer")).to_be_focused()
    assert len(fake.asked) == 1
    assert page.locator("#message").input_value() == "Why?", "what was written is not lost"


def test_a_narrow_page_has_no_sideways_scroll_and_a_finger_turns_the_dial(chat, fake):
    fake.text["default"] = "x" * 300
    page = chat(**PHONE, color_scheme="dark", has_touch=True)
    write(page, "y" * 300)
    ended(page, 1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("#talk").evaluate("talk => talk.scrollWidth <= talk.clientWidth")
    stops = [page.locator(".stop").nth(index).bounding_box() for index in range(4)]
    assert len({stop["y"] for stop in stops}) == 1
    assert all(one["x"] + one["width"] <= other["x"] + 0.5 for one, other in pairwise(stops))
    assert min(min(stop["width"], stop["height"]) for stop in stops) >= 24, "room for a finger"
    page.touchscreen.tap(stops[3]["x"] + stops[3]["width"] / 2, stops[3]["y"] + 10)
    expect(page.locator("#standing")).to_contain_text("neurons=0.35")
    page.mouse.move(stops[3]["x"] + 20, stops[3]["y"] + 15)
    page.mouse.down()
    page.mouse.move(stops[1]["x"] + 20, stops[1]["y"] + 15, steps=6)
    page.mouse.up()
    expect(page.locator("#standing")).to_contain_text("neurons=0.7")
    bottom = page.locator("#compose").bounding_box()
    assert bottom["y"] + bottom["height"] <= 740, "what one writes is always in sight"


def test_the_page_names_all_its_files_and_runs_nothing_inline():
    files = assets()
    html = files[""][0].decode()
    texts = {name: content.decode() for name, (content, _) in files.items()}
    named = set(re.findall(r'(?:href|src)="([a-z_]+\.\w+)"', html))
    named |= {name for text in texts.values() for name in re.findall(r'from "\./(\w+\.js)"', text)}
    assert named == set(files) - {""}
    assert not re.search(r"<script(?! type=\"module\" src=)|<style|\sstyle=|\son\w+=|https?://", html)
    assert not any("innerHTML" in text or "http://" in text.replace("http://www.w3.org", "") for text in texts.values())
    assert {name.rpartition(".")[2]: media_type for name, (_, media_type) in files.items()} == {
        "": "text/html; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }
