"""The server of the dial page: it listens on this machine only, and answers with results of Python functions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response

from sparsedial.errors import UserError
from sparsedial.records.record import Record, plain
from sparsedial.serving.door import SAFE
from sparsedial.serving.listening import address_of, listen, run
from sparsedial.showing.dial_words import problem
from sparsedial.showing.page_files import page_file

HOST = "127.0.0.1"
MOST_QUERY = 4096  # bytes
FILES = ("look.css", "dial.css", "dial_form.js", "dial_chart.js", "dial.js")

Ask = Callable[[Mapping[str, str]], Record]


def make_app(asks: Mapping[str, Ask], port: int) -> Any:
    """The application: the page, its files, and `/api/NAME` for every name in `asks`, which receives the raw query.

    Requests from another host or origin, with a long query or with a body, are refused. No file path comes from a
    request.
    """
    hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Any]) -> Response:
        refused = _refused(request, hosts)
        if refused is not None:
            return Response(refused[1], status_code=refused[0], headers=SAFE)
        response = await call_next(request)
        response.headers.update(SAFE)
        return response

    @app.get("/")
    def page() -> Response:
        return _sent("dial.html")

    @app.get("/{name}")
    def file(name: str) -> Response:
        return _sent(name) if name in FILES else Response("no such file", status_code=404)

    @app.get("/api/{name}")
    def answer(name: str, request: Request) -> Response:
        if name not in asks:
            return Response("no such question", status_code=404)
        try:
            result, status = asks[name](dict(request.query_params)), 200
        except UserError as error:
            result, status = problem(error), 422
        return Response(json.dumps(_finite(plain(result))), status_code=status, media_type="application/json")

    return app


def _sent(name: str) -> Response:
    content, media_type = page_file(name)
    return Response(content, media_type=media_type)


def _refused(request: Any, hosts: set[str]) -> tuple[int, str] | None:
    if request.headers.get("host") not in hosts:
        return 403, "this page answers only requests to its own address"
    origin = request.headers.get("origin")
    if origin is not None and origin not in {f"http://{host}" for host in hosts}:
        return 403, "this page answers only its own requests"
    if request.method not in ("GET", "HEAD"):
        return 405, "this page is read-only"
    if len(request.url.query) > MOST_QUERY:
        return 414, f"the question is too long: an address has at most {MOST_QUERY} bytes"
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        return 413, "a query has no body"
    return None


def _finite(value: Any) -> Any:
    """The value with None for NaN and infinity, which JSON lacks."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def serve(asks: Mapping[str, Ask], port: int, ready: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C; `ready` is called with its address. Port 0 picks a free port.

    Raises: UserError where the port is in use.
    """
    listening = listen(HOST, port)
    ready(f"{address_of(listening)}/")
    run(make_app(asks, listening.getsockname()[1]), listening)
