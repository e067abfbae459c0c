"""The chat page in a browser: asking, stopping, asking again at another setting, going on; by keyboard too."""

from __future__ import annotations

import re
import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("playwright.sync_api")
from playwright.sync_api import expect

from tests.showing.chatting import PHONE, SEA, SKY, WIDE, ended, turn_to, write
from tests.showing.fake_models import MODELS


def test_the_dial_has_a_stop_for_each_setting_from_all_parameters_to_the_fewest(chat):
    page = chat()
    expect(page.locator(".stop")).to_have_count(4)
    assert [" ".join(stop.split()) for stop in page.locator(".stop").all_text_contents()] == [
        "default as trained 135M of 135M parameters active",
        "neurons=0.7 +0.87 % loss 119M of 135M parameters active",
        "neurons=0.5 +4.3 % loss 108M of 135M parameters active",
        "neurons=0.35 not measured 100M of 135M parameters active",
    ]
    expect(page.get_by_role("radio", name="default")).to_be_checked()
    turn_to(page, "neurons=0.5")
    meaning = page.locator("#meaning").inner_text().replace("\N{NO-BREAK SPACE}", " ")
    assert meaning == ("Each token uses 50 % of the dense layers' neurons. 95 % interval of the loss: +2.6 % to +6 %.")
    assert page.locator("h1").inner_text() == page.title() == "tiny"


def test_without_the_defaults_loss_the_dial_counts_in_nats(chat, monkeypatch):
    monkeypatch.setattr("tests.showing.fake_models.MODELS", [{**one, "loss": None} for one in MODELS])
    expect(chat().locator(".stop").nth(1)).to_contain_text("+0.020\N{NO-BREAK SPACE}nats loss")


def test_the_models_name_is_that_of_its_entries_without_the_setting(chat, fake, monkeypatch):
    monkeypatch.setattr("tests.showing.fake_models.MODELS", [{**MODELS[0], "id": "tiny"}, *MODELS[1:]])
    page = chat()
    write(page, "Why?")
    ended(page, 1)
    assert page.title() == fake.asked[0]["model"] == "tiny"


def test_an_answer_streams_and_what_it_took_stands_under_it(chat, fake):
    fake.pace, fake.wait, fake.cached = {"default": 0.05}, 1.05, 34
    page = chat()
    write(page, "Why?")
    expect(page.locator(".answer .text")).to_contain_text("The sky")
    assert page.locator(".answer .text").inner_text() != SKY, "it is seen before it is complete"
    assert page.locator("#said").inner_text() == "Writing an answer at default."
    ended(page, 1)
    assert page.locator(".answer .text").inner_text() == SKY
    spent = page.locator(".spent").inner_text().replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "default",
        "135M active parameters",
        "13 tokens in 1.9 s",
        "8.55 J (estimated)",
        "34 of 40 prompt tokens",
    ):
        assert words in spent
    assert 10 < float(re.search(r"written at ([\d.]+) tokens/s", spent)[1]) < 25
    assert "began after 1" in spent
    expect(page.locator("#said")).to_have_text(f"Answer at default: {SKY}")
    (asked,) = fake.asked
    assert asked["messages"] == [{"role": "user", "content": "Why?"}]
    assert (asked["model"], asked["dial"]) == ("tiny", {"setting": "default"})
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})
    assert (asked["temperature"], asked["max_tokens"]) == (0.8, 256)


def test_an_answer_is_no_longer_than_the_context(chat, fake, monkeypatch):
    monkeypatch.setattr("tests.showing.fake_models.MODELS", [{**one, "max_model_len": 64} for one in MODELS])
    page = chat()
    expect(page.locator("#chosen")).to_have_text("temperature 0.8, at most 64 tokens")
    write(page, "One")
    ended(page, 1)
    assert fake.asked[0]["max_tokens"] == 64
    page.locator("#more summary").click()
    page.locator("#tokens").fill("65")
    write(page, "Two")
    expect(page.locator(".answer")).to_have_count(1)


def test_a_turn_of_the_dial_is_for_the_next_message(chat, fake):
    page = chat()
    write(page, "One")
    ended(page, 1)
    turn_to(page, "neurons=0.5")
    write(page, "Two")
    ended(page, 2)
    assert [asked["dial"]["setting"] for asked in fake.asked] == ["default", "neurons=0.5"]
    assert [one["content"] for one in fake.asked[1]["messages"]] == ["One", SKY, "Two"]


def test_stopping_keeps_what_was_written_and_ends_the_request(chat, fake):
    fake.pace = {"default": 0.1}
    page = chat()
    write(page, "Why?")
    expect(page.locator(".answer .text")).to_contain_text("The")
    page.get_by_role("button", name="Stop").click()
    ended(page, 1)
    expect(page.locator(".spent")).to_contain_text("stopped")
    expect(page.locator("#message")).to_be_focused()
    text = page.locator(".answer .text").inner_text()
    assert SKY.startswith(text)
    assert text != SKY
    for _ in range(400):
        if fake.left:
            break
        time.sleep(0.05)
    assert fake.left == 1, "the server is told"
    write(page, "Go on")
    expect(page.locator(".answer").nth(1)).to_contain_text("The")
    page.keyboard.press("Escape")
    ended(page, 2)
    assert fake.asked[1]["messages"][1] == {"role": "assistant", "content": text}


@pytest.mark.parametrize("options", [WIDE, PHONE])
def test_asking_again_puts_two_answers_beside_each_other_with_their_difference(chat, fake, options):
    fake.pace = {"default": 0.04, "neurons=0.5": 0.01}
    page = chat(**options)
    write(page, "Why?")
    ended(page, 1)
    again = page.locator(".ask-again")
    expect(again).to_be_disabled()
    expect(again).to_contain_text("Turn the dial")
    page.locator(".stop").nth(2).click()
    expect(again).to_have_text("Ask again at neurons=0.5")
    fake.cached = 30  # one more figure under the second answer
    again.click()
    ended(page, 2)
    first, second = (page.locator(".answer").nth(index) for index in (0, 1))
    assert (
        first.locator(".same").nth(1).inner_text()
        == second.locator(".same").nth(1).inner_text()
        == "The sky is blue since "
    )
    assert second.locator(".text").inner_text() == SEA
    found = page.locator(".found").inner_text().replace("\N{NO-BREAK SPACE}", " ")
    assert re.search(r"^Here neurons=0.5 wrote [\d.]+ (times as fast as|% faster than) default and", found)
    assert "and used 54 % less energy a token (estimated).\n" in found
    assert "The first 5 words are the same (grey)." in found
    widths = page.locator(".bars .bar > span").evaluate_all("bars => bars.map(bar => parseFloat(bar.style.width))")
    assert widths[0] == widths[2] == widths[4] == 100  # active, energy; speed of the second
    assert widths[1] < 70
    assert widths[3] == pytest.approx(80.3, abs=0.1)
    assert widths[5] == pytest.approx(45.8, abs=0.1)
    boxes = [one.bounding_box() for one in (first, second)]
    beside = [boxes[0]["y"] == boxes[1]["y"], boxes[1]["y"] > boxes[0]["y"] + 100]
    heights = page.locator(".bars").evaluate_all("all => all.map(one => one.getBoundingClientRect().y)")
    assert (heights[0] == heights[1]) == (options is WIDE), "bars that stand beside each other can be compared"
    assert beside == ([True, False] if options is WIDE else [False, True])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    one, other = fake.asked
    assert (one["messages"], one["seed"]) == (other["messages"], other["seed"])


def test_the_chat_goes_on_from_the_answer_that_is_chosen(chat, fake):
    page = chat()
    write(page, "Why?")
    ended(page, 1)
    turn_to(page, "neurons=0.5")
    page.locator(".ask-again").click()
    ended(page, 2)
    write(page, "More")
    ended(page, 3)
    assert fake.asked[2]["messages"][1]["content"] == SEA, "of itself it is the newest"
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    turn_to(page, "default")
    write(page, "Why?")
    ended(page, 1)
    turn_to(page, "neurons=0.5")
    page.locator(".ask-again").click()
    page.get_by_role("button", name="Go on from this answer").click()
    write(page, "More")
    ended(page, 3)
    assert [one["content"] for one in fake.asked[5]["messages"]] == ["Why?", SKY, "More"]


def test_an_answer_that_had_to_read_more_of_its_prompt_says_so(chat, fake):
    page = chat()
    fake.cached = 30
    write(page, "Why?")
    ended(page, 1)
    fake.cached = 0
    turn_to(page, "neurons=0.5")
    page.locator(".ask-again").click()
    ended(page, 2)
    expect(page.locator(".found")).to_contain_text("neurons=0.5 had to read 30 tokens of the prompt more.")


def test_the_keyboard_does_all(chat, fake):
    page = chat()
    expect(page.locator("#message")).to_be_focused()
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Two")
    height = page.locator("#message").bounding_box()["height"]
    page.keyboard.press("Enter")
    ended(page, 1)
    assert fake.asked[0]["messages"][0]["content"] == "One\nTwo"
    assert page.locator("#message").input_value() == ""
    assert page.locator("#message").bounding_box()["height"] < height
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="neurons=0.5")).to_be_checked()
    page.keyboard.press("Shift+Tab")
    expect(page.locator(".ask-again")).to_be_focused()
    page.keyboard.press("Enter")
    ended(page, 2)
    expect(page.locator("#message")).to_be_focused()
    page.keyboard.press("Enter")
    assert len(fake.asked) == 2, "nothing is not sent"


def test_a_long_answer_is_followed_unless_one_reads_above(chat, fake):
    fake.text["default"], fake.pace = "word\n\n " * 60, {"default": 0.001}
    page = chat()
    write(page, "Why?")
    ended(page, 1)
    talk = page.locator("#talk")
    assert talk.evaluate("talk => talk.scrollHeight - talk.scrollTop - talk.clientHeight") < 2
    turn_to(page, "neurons=0.5")
    page.locator(".ask-again").click()
    ended(page, 2)
    fake.pace = {"neurons=0.5": 0.03}
    write(page, "Again")
    talk.evaluate("talk => { talk.scrollTop = 0; }")
    ended(page, 3)
    assert talk.evaluate("talk => talk.scrollTop") == 0


def test_every_control_has_a_name_and_the_texts_are_no_live_region(chat):
    page = chat()
    write(page, "Why?")
    ended(page, 1)
    for control in page.locator("input, textarea, button").all():
        label = control.evaluate("e => (e.labels?.[0]?.textContent || e.ariaLabel || e.textContent || '').trim()")
        assert label, control.evaluate("e => e.outerHTML")
    assert page.locator("#talk [aria-live], #turns [role=status], #turns [role=log]").count() == 0
    assert page.get_by_role("group", name="Dial").count() == 1


def test_of_an_answer_that_was_stopped_the_page_does_not_say_what_it_had_to_read(chat, fake):
    fake.pace, fake.cached = {"default": 0.2}, 34
    page = chat()
    write(page, "Why?")
    expect(page.locator(".answer .text")).to_contain_text("The sky")
    page.locator("#stop").click()
    turn_to(page, "neurons=0.5")
    page.locator(".ask-again").click()
    ended(page, 2)
    expect(page.locator(".found")).to_contain_text("are the same (grey)")
    expect(page.locator(".found")).not_to_contain_text("had to read")


def test_an_answer_that_was_stopped_before_its_first_word_can_be_asked_for_again(chat, fake):
    fake.wait = 3.0
    page = chat()
    write(page, "Why?")
    page.locator("#stop").click()
    ended(page, 1)
    fake.wait = 0.0
    page.get_by_role("button", name="Ask again at default").click()
    expect(page.locator(".answer .text").nth(1)).to_have_text(SKY)
