"""The OpenAI-compatible server of a checkpoint, whose setting each request chooses."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sparsedial.records.record import Record
from sparsedial.records.serving import ChatRequest, CompletionRequest, Health, TextRequest
from sparsedial.serving.answers import Answers, Piece, joined
from sparsedial.serving.dial import Chosen
from sparsedial.serving.door import SAFE, Door
from sparsedial.serving.forms import ChatForm, Form, Head, TextForm
from sparsedial.serving.metrics import MEDIA_TYPE, metrics_text
from sparsedial.serving.refused import Refused
from sparsedial.serving.requests import read_request
from sparsedial.serving.service import Ids, Service

MOST_BODY = 8 * 2**20  # bytes
GONE = 499  # the client left: nobody reads this status
DONE = b"data: [DONE]\n\n"
ENDPOINTS = """\
POST /v1/chat/completions
POST /v1/completions
GET  /v1/models
GET  /v1/models/NAME
GET  /health
GET  /metrics
"""
OPEN = ("/health",)  # beside the pages: without a key
Assets = Mapping[str, tuple[bytes, str]]  # by path, "" is `/`: what is there, and its media type

T = TypeVar("T")


def make_app(service: Service, assets: Assets, *, key: str | None, loopback: bool) -> FastAPI:
    """The application of a served checkpoint; `key` and `loopback` as for `Door`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    pages = {"": (ENDPOINTS.encode(), "text/plain; charset=utf-8"), **assets}
    paths = frozenset([*OPEN, *(f"/{name}" for name in pages)])
    app.add_middleware(_Guard, door=Door(key=key, loopback=loopback, open=paths))
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _no_endpoint)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _broken)

    @app.api_route("/health", methods=["GET", "HEAD"])  # monitors ask with either
    async def health() -> Response:
        return _json(Health(model=service.dial.name))

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(metrics_text(service.engine.load()), media_type=MEDIA_TYPE)

    @app.get("/v1/models")
    async def models() -> Response:
        return _json(service.dial.models())

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        return _json(service.dial.model(name))

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        asked = read_request(await _body(request), ChatRequest)
        chosen = service.dial.chosen(asked.model, asked.dial)
        prompts = await asyncio.to_thread(service.chat_ids, asked.messages)
        return await _answered(request, service, asked, chosen, prompts, ChatForm())

    @app.post("/v1/completions")
    async def complete(request: Request) -> Response:
        asked = read_request(await _body(request), CompletionRequest)
        chosen = service.dial.chosen(asked.model, asked.dial)
        prompts = await asyncio.to_thread(service.prompt_ids, asked.prompt)
        return await _answered(request, service, asked, chosen, prompts, TextForm())

    for name, (content, media_type) in pages.items():
        app.add_route(f"/{name}", _page(content, media_type))
    return app


def _page(content: bytes, media_type: str) -> Any:
    async def page(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return page


async def _answered(
    request: Request, service: Service, asked: TextRequest, chosen: Chosen, prompts: tuple[Ids, ...], form: Form
) -> Response:
    """The answers to a request, in pieces or whole; where the client leaves before they have ended, they end too."""
    head = Head(
        id=f"{form.prefix}-{secrets.token_hex(12)}",
        created=int(time.time()),
        model=service.dial.identity(chosen.setting),
    )
    guide = await asyncio.to_thread(service.guide, asked.response_format)
    answers = service.begin(asked, chosen, prompts, guide)

    def usage() -> Any:
        return service.usage(asked, chosen, prompts, answers)

    if asked.stream:
        options = asked.stream_options
        last = usage if options and options.include_usage else None
        return _Events(answers, _events(answers, form, head, asked.n * len(prompts), last))
    try:
        whole = await _while_here(request, _whole(answers, asked.n * len(prompts)))
        return Response(status_code=GONE) if whole is None else _json(form.whole(head, whole, usage()))
    finally:
        answers.forget()


async def _whole(answers: Answers, count: int) -> list[Piece]:
    """Each answer as one piece."""
    pieces: list[list[Piece]] = [[] for _ in range(count)]
    async for piece in answers.pieces():
        pieces[piece.index].append(piece)
    return [joined(each) for each in pieces]


async def _events(answers: Answers, form: Form, head: Head, count: int, usage: Any) -> AsyncIterator[bytes]:
    """Server-sent events: each piece as it comes; an error is one too, and ends the stream."""
    try:
        for record in form.begins(head, count):
            yield _event(record)
        async for piece in answers.pieces():
            yield _event(form.piece(head, piece))
        if usage is not None:
            yield _event(form.last(head, usage()))
    except Refused as error:
        yield b"event: error\n" + _event(error.reply)
    else:
        yield DONE


class _Events(StreamingResponse):
    """A stream of events, whose answers end with it: also where the client left before the first event."""

    def __init__(self, answers: Answers, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answers.forget()


async def _while_here(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """What the work gives; it is cancelled where the client leaves, and then gives nothing."""
    doing, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        doing.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    """Wait until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request) -> bytes:
    """The body of a request.

    Raises: Refused where it is too long.
    """
    parts, size = list[bytes](), 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > MOST_BODY:
            raise Refused(413, f"the body of a request has at most {MOST_BODY:,} bytes", code="body_too_long")
    return b"".join(parts)


class _Guard:
    """Lets in whom the door lets in, and says how browsers are to treat what goes out."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def safely(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.lower().encode(), value.encode()) for name, value in SAFE.items()]
            await send(message)

        try:
            self._door.check(scope["path"], Headers(scope=scope))
        except Refused as error:
            await _error(error)(scope, receive, safely)
            return
        await self._app(scope, receive, safely)


def _json(record: Record, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(record), status, headers, "application/json")


def _event(record: Record) -> bytes:
    return b"data: " + msgspec.json.encode(record) + b"\n\n"


def _error(error: Refused) -> Response:
    return _json(error.reply, error.status, error.headers)


async def _refused(request: Request, error: Any) -> Response:
    return _error(error)


async def _no_endpoint(request: Request, error: Any) -> Response:
    headers = error.headers or {}  # such as the methods that it has
    other = f"; this address takes {headers['Allow']}" if "Allow" in headers else ""
    words = f"{request.method} {request.url.path}: no such endpoint{other}"
    reply = Refused(error.status_code, words, code="no_such_endpoint").reply
    return _json(reply, error.status_code, headers)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=GONE)


async def _broken(request: Request, error: Exception) -> Response:
    """Say so; the traceback goes to standard error."""
    return _error(Refused(500, "the server has a bug; its output says where", code="bug"))
