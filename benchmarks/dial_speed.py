"""Time from a turn of the dial to the new figures on the page: `python -m benchmarks.dial_speed`.

In a headless Chromium (Playwright, Debian's `chromium`), by the page's own clock, drawing included: the dial moved by a
position, and another budget asked of the Python behind it. Writes benchmarks/records/dial_speed.json.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, expect, sync_playwright

from benchmarks.keeping import keep
from sparsedial.machine.hardware import BusyWatch
from sparsedial.machine.timing import summarise

HERE = Path(__file__).parent
RECORD = HERE / "records" / "dial_speed.json"
LAWS = {"a published law (abnar)": "abnar", "a study's own law": str(HERE / "records" / "reference_study")}
TURNS, PAUSE = 40, 400  # milliseconds: the crossover that follows an answer is there before the next question
TURN = """(place) => {
  const began = performance.now();
  by("dial").value = place;
  by("dial").dispatchEvent(new Event("input"));
  return (performance.now() - began) / 1000;
}"""
ASK = """async (factor) => {
  field("amount").value = field("amount").value.replace(/^[0-9.]+(e[+]?[0-9]+)?/, (number) => Number(number) * factor);
  const began = performance.now();
  await refresh();
  return (performance.now() - began) / 1000;
}"""


def measure(browser: Browser, name: str, law: str) -> list[dict[str, Any]]:
    """Seconds of a turn and of another budget, with one law."""
    command = [sys.executable, "-m", "sparsedial.cli.main", "dial", law, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, ExitStack() as stack:
        assert server.stderr is not None
        stack.callback(server.terminate)
        address = next(word for word in server.stderr.readline().split() if word.startswith("http://"))
        page = browser.new_page()
        page.goto(address)
        expect(page.locator("#loss")).not_to_have_text("–", timeout=30_000)
        last = int(page.locator("#dial").get_attribute("max") or 1)
        turned = [page.evaluate(TURN, number % (last + 1)) for number in range(TURNS)]
        asked = []
        for number in range(TURNS):
            page.wait_for_timeout(PAUSE)
            asked.append(page.evaluate(ASK, 1.1 if number % 2 else 0.9))
        assert page.locator("#finding").get_attribute("class") != "wrong", page.locator("#finding").inner_text()
        page.close()
    return [
        {"law": name, "what": what, **summarise(seconds[2:]).record()}  # the first two warm the browser's code
        for what, seconds in (("the dial turned", turned), ("another budget", asked))
    ]


def main() -> None:
    """Measure with every law and write the record."""
    busy, rows = BusyWatch(), []
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, law in LAWS.items():
            rows += measure(browser, name, law)
        browser.close()
    for row in rows:
        print(row)
    keep(RECORD, "python -m benchmarks.dial_speed", {"rows": rows, "machine_busy": busy.share()})


if __name__ == "__main__":
    main()
