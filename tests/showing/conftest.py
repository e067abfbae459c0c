"""The browser in which pages are tested, and the chat page in it."""

from __future__ import annotations

import shutil
import socket
import threading
from contextlib import contextmanager

import pytest


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    with pytest.importorskip("playwright.sync_api").sync_playwright() as running:
        made = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield made
        made.close()


@contextmanager
def listening(app):
    """The address at which a thread of this process serves an application."""
    uvicorn = pytest.importorskip("uvicorn")
    port = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [port]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{port.getsockname()[1]}/"
    finally:
        running.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def server():
    """The fake server of the chat page, which a test changes, and its address."""
    pytest.importorskip("fastapi")
    from tests.showing.fake_models import Fake, fake_app

    fake = Fake()
    with listening(fake_app(fake)) as address:
        yield fake, address


@pytest.fixture
def fake(server):
    """That server as it is at first."""
    from tests.showing.chatting import SEA, SKY
    from tests.showing.fake_models import Fake

    vars(server[0]).update(vars(Fake(text={"default": SKY, "neurons=0.5": SEA})))
    return server[0]


@pytest.fixture
def chat(browser, server, fake):
    """Opens the chat page; an error in its script or on its console, or a request to another place, fails the test.

    What a browser itself writes of a refused request is left out.
    """
    from tests.showing.chatting import WIDE

    contexts, wrong = [], []

    def opened(address=server[1], **options):
        contexts.append(browser.new_context(**(options or WIDE)))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if "Failed to load resource" not in line.text else None)
        page.on("request", lambda request: None if request.url.startswith(address) else wrong.append(request.url))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []
