"""The chat page on the server that `serve` starts, whose engine writes what a test says."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("playwright.sync_api")
from playwright.sync_api import expect

from sparsedial.showing.chat_page import assets
from tests.serving.served import NAME, Script, app_of
from tests.showing.chatting import ended, turn_to, write
from tests.showing.conftest import listening


def test_a_chat_is_asked_and_asked_again_at_another_setting(chat):
    engine = Script(text=b"It is blue, and so is the sea.")
    with listening(app_of(engine, assets=assets())) as address:
        page = chat(address)
        expect(page.locator(".stop").nth(0)).to_contain_text("as trained")
        expect(page.locator(".stop").nth(2)).to_contain_text("k=1 +0.5\N{NO-BREAK SPACE}% loss")
        assert page.title() == NAME
        write(page, "Why?")
        ended(page, 1)
        turn_to(page, "k=1")
        page.locator(".ask-again").click()
        ended(page, 2)
        assert page.locator(".answer .text").all_inner_texts() == [engine.text.decode()] * 2
        expect(page.locator(".found")).to_contain_text("used as much energy a token as k=2")
        expect(page.locator(".found")).to_contain_text("The texts are the same.")
        expect(page.locator(".spent").nth(1)).to_contain_text("30 tokens in 1.5\N{NO-BREAK SPACE}s")
    one, other = engine.asks
    assert [ask.turned.top_k for ask in engine.asks] == [(2,), (1,)]
    assert (one.prompt, one.sampling, one.tokens) == (other.prompt, other.sampling, other.tokens)
    assert (one.sampling.temperature, one.tokens) == (0.8, min(256, 64 - len(one.prompt)))


def test_the_energy_of_an_answer_of_a_few_words_is_not_compared(chat):
    with listening(app_of(Script(text=b"Blue."), assets=assets())) as address:
        page = chat(address)
        write(page, "Why?")
        ended(page, 1)
        turn_to(page, "k=1")
        page.locator(".ask-again").click()
        ended(page, 2)
        expect(page.locator(".found")).to_contain_text("The texts are the same.")
        expect(page.locator(".found")).not_to_contain_text("energy")


def test_its_key_its_errors_and_its_silence_on_chats_reach_the_page(chat):
    engine = Script(problem="the model gives no numbers")
    with listening(app_of(engine, assets=assets(), key="secret", template=None)) as address:
        page = chat(address)
        page.get_by_label("This server wants an API key.").fill("secret")
        page.get_by_role("button", name="Use this key").click()
        page.get_by_role("button", name="Once upon a time there was").click()
        expect(page.locator(".answer .problem")).to_contain_text("he model gives no numbers.")
        engine.problem = None
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".answer .text")).to_have_text("Once upon a time there wasHello, world")


def test_stopping_ends_the_answer_of_the_engine(chat):
    engine = Script(ends=False)
    with listening(app_of(engine, assets=assets())) as address:
        page = chat(address)
        write(page, "Why?")
        expect(page.locator(".answer .text")).to_have_text("Hello, world")
        page.keyboard.press("Escape")
        expect(page.locator(".spent")).to_contain_text("stopped")
    assert engine.forgotten == [1]
