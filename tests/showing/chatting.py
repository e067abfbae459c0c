"""What a test does on the chat page, and the two answers that its server gives."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

WIDE = {"viewport": {"width": 1280, "height": 860}}
PHONE = {"viewport": {"width": 360, "height": 740}}
SKY = "The sky is blue since air scatters short waves more than long ones."
SEA = "The sky is blue since a sea lies below it and is blue."


def write(page: Page, text: str) -> None:
    page.locator("#message").fill(text)
    page.locator("#message").press("Enter")


def turn_to(page: Page, name: str) -> None:
    page.get_by_role("radio", name=re.compile(f"^{re.escape(name)} ")).check()


def ended(page: Page, answers: int) -> None:
    expect(page.locator(".answer:not(.writing)")).to_have_count(answers)
