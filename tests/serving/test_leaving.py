"""Whoever leaves frees the slot, wherever the answer is; and those who wait keep nobody from asking."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.serving.served import ADDRESS, ASKED, PATIENCE, Script, app_of

HEADERS = [(b"host", b"127.0.0.1:8000")]


async def leaves(app: Any, asked: dict[str, Any], after: int) -> list[Any]:
    """What a server sends to a client that leaves after so many messages."""
    messages = [{"type": "http.request", "body": json.dumps({**ASKED, **asked}).encode(), "more_body": False}]
    sent: list[Any] = []
    enough = asyncio.Event()

    async def receive() -> Any:
        if messages:
            return messages.pop()
        if after:
            await enough.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) >= after:
            enough.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "root_path": "",
        "headers": HEADERS,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    await asyncio.wait_for(app(scope, receive, send), timeout=PATIENCE)
    return sent


@pytest.mark.parametrize(
    ("asked", "after"),
    [({}, 0), ({"stream": True}, 0), ({"stream": True}, 1), ({"stream": True}, 3), ({"stream": True, "n": 3}, 4)],
    ids=json.dumps,
)
def test_a_client_that_leaves_frees_its_slots(asked, after):
    engine = Script(text=b"Hello", ends=False)
    sent = asyncio.run(leaves(app_of(engine), asked, after))
    assert engine.forgotten == list(range(1, 1 + asked.get("n", 1)))
    assert engine.open == {}
    assert len(sent) >= after


def test_an_answer_that_has_ended_is_not_forgotten():
    engine = Script()
    asyncio.run(leaves(app_of(engine), {"stream": True}, 1000))
    assert engine.forgotten == []


def test_when_one_of_several_answers_is_not_taken_the_others_are_forgotten():
    engine = Script(ends=False)
    taken = engine.ask

    def ask(asked: Any, told: Any) -> int:
        if engine.asks:
            from sparsedial.errors import UserError

            raise UserError("no more")
        return taken(asked, told)

    engine.ask = ask  # type: ignore[method-assign]
    asyncio.run(leaves(app_of(engine), {"n": 2}, 1000))
    assert engine.forgotten == [1]


def test_a_hundred_that_wait_do_not_stop_the_server():
    engine = Script(text=b"", ends=False)

    async def many() -> int:
        transport = httpx.ASGITransport(app=app_of(engine))
        async with httpx.AsyncClient(transport=transport, base_url=ADDRESS) as client:
            waiting = [asyncio.create_task(client.post("/v1/chat/completions", json=ASKED)) for _ in range(100)]
            while len(engine.open) < 100:
                await asyncio.sleep(0.01)
            answer = await asyncio.wait_for(client.get("/health"), timeout=5)
            for number in list(engine.open):
                engine.finish(number)
            assert {one.status_code for one in await asyncio.gather(*waiting)} == {200}
            return answer.status_code

    assert asyncio.run(many()) == 200
