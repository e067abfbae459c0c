"""A served checkpoint whose engine writes what a test says, and ways to ask it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from sparsedial.errors import UserError
from sparsedial.model.greedy import Vocabulary
from sparsedial.records.dial_file import DialFile
from sparsedial.serving.app import make_app
from sparsedial.serving.asks import Ask, Load, Scored, Spent, Told
from sparsedial.serving.dial import Dial, chosen_at
from sparsedial.serving.guide import Guides
from sparsedial.serving.service import Service
from sparsedial.shape.turned import Turned
from sparsedial.text.prompts import Prompts
from sparsedial.text.token_bytes import TokenBytes
from sparsedial.text.tokenizer import byte_tokenizer
from tests.serving.test_budget import DIAL, EVEN

NAME, ADDRESS = "tiny", "http://127.0.0.1:8000"
SHAPE = replace(EVEN, vocab_size=256)  # of bytes
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[answer]"
SPENT = Spent(cached=3, waited=0.25, seconds=1.5, joules=2.0)
PATIENCE = 5  # seconds, of who waits for an answer
ASKED = {"messages": [{"role": "user", "content": "hi"}]}


def spent(number: int) -> Spent:
    """What an answer took; every second one has a token more of its prompt from a slot."""
    return replace(SPENT, cached=SPENT.cached + (number + 1) % 2)


def scored(byte: int, top: int) -> Scored:
    """How likely the engine says a byte to be; the one before it in the alphabet is always likelier."""
    return Scored(token=byte, logprob=-byte / 8, top=(((byte - 1) % 256, -byte / 16), (byte, -byte / 8))[:top])


@dataclass
class Script:
    """An engine that answers every prompt with the same bytes, as far as it is let."""

    text: bytes = b"Hello, world"
    ends: bool = True  # else it goes on for ever behind the text, until it is finished or forgotten
    problem: str | None = None  # it fails with
    refuses: UserError | None = None  # to begin an answer
    waiting: int = 0
    asks: list[Ask] = field(default_factory=list)
    open: dict[int, Told] = field(default_factory=dict)
    forgotten: list[int] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)

    def ask(self, ask: Ask, told: Told) -> int:
        if self.refuses is not None:
            raise self.refuses
        self.asks.append(ask)
        number = len(self.asks)
        self.open[number] = told
        if ask.scores_prompt:
            told.prompt([scored(byte, ask.top or 0) for byte in ask.prompt[1:]])
        for byte in self.text[: ask.tokens]:
            told.token(byte, None if ask.top is None else scored(byte, ask.top))
        if self.problem is not None:
            self.open.pop(number).ended("failed", spent(number), self.problem)
        elif self.ends and ask.tokens <= len(self.text):
            self.open.pop(number).ended("length", spent(number))
        elif self.ends:
            end_token = None if ask.top is None else scored(0, ask.top)
            self.open.pop(number).ended("stop", spent(number), end_token=end_token)
        return number

    def finish(self, number: int) -> None:
        if number in self.open:
            self.finished.append(number)
            self.open.pop(number).ended("stop", spent(number))

    def forget(self, number: int) -> None:
        if self.open.pop(number, None) is not None:
            self.forgotten.append(number)

    def load(self) -> Load:
        return Load(
            slots=4,
            busy=len(self.open),
            waiting=self.waiting,
            tokens_read=100,
            tokens_cached=20,
            tokens_written=7,
            seconds_busy=1.5,
            joules=2.25,
        )


def service_of(engine: Script, measured: DialFile | UserError = DIAL, template: str | None = TEMPLATE) -> Service:
    """The tiny checkpoint, with the dial of the budget's tests."""
    tokenizer = byte_tokenizer()
    words = TokenBytes(tokenizer)
    return Service(
        engine=engine,
        dial=Dial(
            name=NAME,
            created=1,
            shape=SHAPE,
            length=64,
            default=chosen_at(Turned(), SHAPE, "default"),
            measured=measured,
            usual=(Turned(), Turned(top_k=(1,))),
            chat=template is not None,
        ),
        tokenizer=tokenizer,
        words=words,
        guides=Guides(tokenizer, words, Vocabulary(ends=frozenset({tokenizer.end_token})), SHAPE.vocab_size),
        prompts=Prompts(folder=Path("tiny"), special={}, template=template, backend=None),
        joules_basis="estimated",
    )


def app_of(engine: Script, *, key: str | None = None, loopback: bool = True, assets: Any = (), **more: Any) -> Any:
    """Its server."""
    return make_app(service_of(engine, **more), dict(assets), key=key, loopback=loopback)


def within(app: Any, talk: Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]]) -> Any:
    """What a conversation with a server gives."""

    async def run() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=ADDRESS) as client:
            return await asyncio.wait_for(talk(client), timeout=PATIENCE)

    return asyncio.run(run())


def post(app: Any, path: str = "chat/completions", body: Any = None, **headers: str) -> httpx.Response:
    """The response to a request."""
    content = body if isinstance(body, bytes) else json.dumps(ASKED if body is None else body).encode()
    return within(app, lambda client: client.post(f"/v1/{path}", content=content, headers=headers))


def get(app: Any, path: str, **headers: str) -> httpx.Response:
    """The response to a GET."""
    return within(app, lambda client: client.get(path, headers=headers))


def chat(engine: Script, **asked: Any) -> Any:
    """The JSON of a chat's answer."""
    response = post(app_of(engine), body={**ASKED, **asked})
    assert response.status_code == 200, response.text
    return response.json()


def events_of(response: httpx.Response) -> list[Any]:
    """The events of a stream, each parsed, the last one as it is."""
    blocks = [block for block in response.text.split("\n\n") if block]
    data = [line.removeprefix("data: ") for block in blocks for line in block.split("\n") if line.startswith("data: ")]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


def streamed(engine: Script, path: str = "chat/completions", body: Any = None, **asked: Any) -> list[Any]:
    """The events of an answer."""
    response = post(app_of(engine), path, {**(body or ASKED), **asked, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return events_of(response)


def text_of(events: list[Any], index: int = 0) -> str:
    """The text that one of a stream's answers adds up to."""
    choices = [choice for event in events[:-1] for choice in event["choices"] if choice["index"] == index]
    return "".join(choice["delta"]["content"] if "delta" in choice else choice["text"] for choice in choices)
