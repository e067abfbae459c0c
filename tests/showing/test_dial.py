"""The dial page: what it asks is answered by the planner, and it is served to this machine alone."""

from __future__ import annotations

import csv
import io
import json
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from sparsedial.cli.main import main
from sparsedial.law import published
from sparsedial.records.record import write
from sparsedial.verbs.questions import questions
from tests.showing.synthetic import study_record

fastapi_client = pytest.importorskip("fastapi.testclient")
pytest.importorskip("plotly")

PORT = 8765
STATE = {"flops": "1e21", "max_total_parameters": "30B", "device": "h100", "devices": "8", "price": "2.5"}


@pytest.fixture(scope="module")
def client():
    from sparsedial.showing.dial_server import make_app

    app = make_app(questions("abnar"), PORT)
    with fastapi_client.TestClient(app, base_url=f"http://127.0.0.1:{PORT}") as made:
        yield made


def test_the_best_position_is_the_plans_answer(client, capsys):
    answer = client.get("/api/dial", params=STATE).json()
    words = [f"--{key.replace('_', '-')}={value}" for key, value in STATE.items()]
    assert main(["plan", *words, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    best = answer["positions"][answer["best"]]
    assert best["shape"] == plan["shape"]
    assert best["predicted_loss"]["mean"] == plan["predicted_loss"]["mean"]
    assert best["costs"]["dollars"] == plan["costs"]["dollars"]
    dense = answer["positions"][answer["dense"]]
    assert dense["shape"] == plan["dense_rival"]["shape"]


def test_the_command_that_the_page_shows_gives_what_it_shows(client, capsys):
    answer = client.get("/api/dial", params=STATE).json()
    for row in answer["positions"]:
        words = shlex.split(answer["command"].replace("SPARSITY", str(row["sparsity"])))
        assert main([*words[1:], "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["shape"] == row["shape"]


def test_the_page_minds_what_the_plan_minds(client, capsys):
    far = {**STATE, "flops": "1e24"}
    answer = client.get("/api/dial", params=far).json()
    assert main(["plan", *(f"--{key.replace('_', '-')}={value}" for key, value in far.items()), "--json"]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert any("times outside" in line for line in warnings)
    assert answer["positions"][answer["best"]]["warnings"] == warnings


def test_the_page_opens_at_a_budget_that_the_law_was_fitted_on(tmp_path):
    write(tmp_path / "law.json", replace(published("abnar"), fitted_range={"flops": (1e17, 4e18)}))
    assert float(questions(str(tmp_path))["start"]({})["state"]["flops"]) == 4e18
    write(tmp_path / "study.json", study_record())
    assert questions(str(tmp_path))["start"]({})["state"] == {"flops": "4e+18"}


def test_the_table_as_csv_holds_every_position(client):
    answer = client.get("/api/dial", params=STATE).json()
    rows = list(csv.DictReader(io.StringIO(answer["csv"])))
    assert [float(row["loss"]) for row in rows] == [row["predicted_loss"]["mean"] for row in answer["positions"]]
    assert all(row["loss_low"] == "" for row in rows)


def test_every_law_and_currency_answers(client):
    start = client.get("/api/start").json()
    for law in start["laws"]:
        answer = client.get("/api/dial", params={**STATE, "law": law})
        assert answer.status_code == 200, (law, answer.text)
    for currency, amount in (("seconds", "5d"), ("joules", "700kWh"), ("dollars", "2500"), ("target_loss", "2.1")):
        state = {key: value for key, value in STATE.items() if key != "flops"} | {currency: amount}
        for name in ("dial", "crossover"):
            answer = client.get(f"/api/{name}", params=state)
            assert answer.status_code == 200, (currency, name, answer.text)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"flops": "0"}, "not a positive number"),
        ({"flops": "1e40"}, "not a realistic training budget"),
        ({"top_k": "-1"}, "below 1"),
        ({"devices": "nan"}, "not a number"),
        ({"context": "1e30"}, "above"),
        ({"sparsity": "nan"}, "not a number"),
        ({"max_total_parameters": "1k"}, "no shape respects"),
        ({"device": "/etc/passwd"}, "no device named"),
        ({"device": "profile.json"}, "no device named"),
        ({"law": "/etc/passwd"}, "no published law"),
        ({"law": "../law.json"}, "no published law"),
        ({"out": "/tmp/x"}, "cannot be set on the page"),
        ({"export": "/tmp/x"}, "cannot be set on the page"),
        ({"nonsense": "1"}, "no setting named"),
    ],
)
def test_a_bad_question_is_answered_with_what_is_wrong(client, change, says):
    answer = client.get("/api/dial", params={**STATE, **change})
    assert answer.status_code == 422
    assert says in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", "/", {"Host": "evil.example"}, None, 403),
        ("GET", "/api/start", {"Origin": "https://evil.example"}, None, 403),
        ("GET", "/api/start", {"Origin": f"http://127.0.0.1:{PORT}"}, None, 200),
        ("POST", "/api/dial", {}, b"x", 405),
        ("GET", "/api/dial?flops=" + "1" * 5000, {}, None, 414),
        ("GET", "/api/start", {}, b"x" * 5000, 413),
        ("GET", "/api/dial?flops=1e21", {}, b"{", 413),
        ("GET", "/api/start", {"Transfer-Encoding": "chunked"}, None, 413),
        ("GET", "/api/start", {"Content-Length": "-1"}, None, 413),
        ("GET", "/api/start", {"Host": f"127.0.0.1:{PORT}.evil.example"}, None, 403),
        ("GET", "/api/start", {"Origin": "null"}, None, 403),
        ("DELETE", "/api/start", {}, None, 405),
        ("GET", "//etc/passwd", {}, None, 404),
        ("GET", "/dial.js%00", {}, None, 404),
        ("GET", "/openapi.json", {}, None, 404),
        ("GET", "/../pyproject.toml", {}, None, 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", {}, None, 404),
        ("GET", "/api/nothing", {}, None, 404),
        ("GET", "/dial.js", {}, None, 200),
    ],
)
def test_only_its_own_page_is_served_to_its_own_address(client, method, path, headers, body, status):
    answer = client.request(method, path, headers=headers, content=body)
    assert answer.status_code == status
    assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_a_port_that_is_taken_is_said(capsys):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["dial", "--port", str(taken.getsockname()[1])]) == 2
    assert "is in use" in capsys.readouterr().err


def test_a_turn_is_answered_within_fifty_milliseconds(client):
    client.get("/api/dial", params=STATE)
    took = []
    for flops in ("9e20", "8e20", "7e20", "6e20", "5e20"):
        began = time.perf_counter()
        client.get("/api/dial", params={**STATE, "flops": flops})
        took.append(time.perf_counter() - began)
    assert min(took) < 0.05  # the least of five: other work on the machine only adds


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command = [sys.executable, "-m", "sparsedial.cli.main", "dial", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
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


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as running:
        made = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield made
        made.close()


def opened(browser, address: str, **options):
    from playwright.sync_api import expect

    page = browser.new_context(**options).new_page()
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(address)
    expect(page.locator("#loss")).not_to_have_text("–", timeout=30_000)
    return page


@pytest.mark.parametrize("options", [
    {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"},
])  # fmt: skip
def test_turning_by_keyboard_moves_every_figure_and_the_address(browser, address, options):
    page = opened(browser, address, **options)
    before = page.locator("#loss").inner_text(), page.url
    page.locator("#dial").focus()
    page.keyboard.press("Home")
    assert page.locator("#sparsity").inner_text() == "dense"
    assert page.locator("#dial").get_attribute("aria-valuetext").startswith("dense, loss")
    assert page.locator("#loss").inner_text() != before[0]
    assert page.url != before[1]
    assert "--sparsity 0" in page.locator("#command").inner_text()
    assert page.locator("body").evaluate("body => body.scrollWidth <= innerWidth")
    page.context.close()


def test_a_link_reproduces_the_view(browser, address):
    page = opened(browser, address)
    page.locator("input[name=amount]").fill("3e20")
    page.locator("select[name=law]").select_option("ludziejewski")
    page.wait_for_url("**flops=3e20**ludziejewski**")
    page.locator("#dial").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    seen = page.locator("#figures").inner_text(), page.locator("#command").inner_text()
    again = opened(browser, page.url)
    assert (again.locator("#figures").inner_text(), again.locator("#command").inner_text()) == seen
    again.context.close()
    page.context.close()


def test_a_bad_amount_is_said_and_the_next_good_one_answered(browser, address):
    from playwright.sync_api import expect

    page = opened(browser, address)
    page.locator("input[name=amount]").fill("lots")
    expect(page.locator("#finding")).to_contain_text("cannot read 'lots'")
    page.locator("input[name=amount]").fill("1e20")
    expect(page.locator("#finding")).to_contain_text("The best sparsity is")
    page.context.close()


def test_table_plan_and_picture_are_saved(browser, address):
    page = opened(browser, address, accept_downloads=True)
    for button, name in (("#save-csv", "sparsedial.csv"), ("#save-plan", "plan.json"), ("#save-png", "sparsedial.png")):
        with page.expect_download() as download:
            page.locator(button).click()
        assert download.value.suggested_filename == name
    page.context.close()


def test_every_control_has_a_name(browser, address):
    page = opened(browser, address)
    for control in page.locator("input, select, button").all():
        label = control.evaluate("e => (e.labels?.[0]?.innerText || e.innerText || e.ariaLabel || '').trim()")
        assert label, control.evaluate("e => e.outerHTML")
    page.context.close()
